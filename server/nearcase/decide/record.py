"""The record of a decision: enough to make the same decision again, bit for bit, and to see what changed since.

Floats are written as the shortest text that reads back as the same bits, and the record is sealed by the SHA-256 of its
canonical JSON, which is its id too. It names prior cases by id and holds no other patient data: see `basis`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from nearcase.decide.basis import Basis
from nearcase.decide.canonical import digest, seal, unseal
from nearcase.decide.fitted import Fitted
from nearcase.decide.verdict import verdict
from nearcase.errors import InvalidInput
from nearcase.types import Case, CaseFacts, Decision, Hit

if TYPE_CHECKING:
    from nearcase.types import Embedding

FORMAT = "nearcase-record/1"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the basis came from, as hashes: who holds the files can prove that they are these."""

    image_sha256: str
    vector_sha256: str  # of the embedding's float32 bytes
    fitted_sha256: str  # of the fit's body; "" without one
    at_s: float  # seconds since 1970, UTC
    made_by: str  # program and version

    @classmethod
    def of(
        cls, *, image_sha256: str, vector: Embedding | None, fitted: Fitted | None, at_s: float, made_by: str
    ) -> Origin:
        """Returns the hashes of what is given."""
        return cls(image_sha256, _hash(vector), fitted.sha256 if fitted else "", at_s, made_by)


@dataclass(frozen=True, slots=True)
class Record:
    """One decision as it was made."""

    origin: Origin
    basis: Basis
    answer: str  # SHA-256 of what was decided, see answer_of

    @property
    def record_id(self) -> str:
        """The SHA-256 of the record's canonical JSON."""
        return digest(self)


def record_of(basis: Basis, decision: Decision, origin: Origin) -> Record:
    """Returns the record of a decision that was made from a basis."""
    return Record(origin, basis, answer_of(decision))


def write_record(record: Record) -> bytes:
    """Returns the file: one line, canonical."""
    return seal(FORMAT, record)


def read_record(data: bytes) -> Record:
    """Returns the record.

    Raises:
        InvalidInput: With reason RECORD_INVALID: the bytes are no record, or were edited since they were written.
    """
    return unseal(FORMAT, Record, data, reason="RECORD_INVALID")


def replay(record: Record) -> Decision:
    """Returns the decision again, from the record alone; its evidence has of each case only the id.

    Raises:
        InvalidInput: With reason REPLAY_DIFFERS: this program decides otherwise from the same basis.
    """
    decision = verdict(record.basis)
    if answer_of(decision) != record.answer:
        message = "expected the decision that was recorded, got another: this version or machine computes otherwise"
        raise InvalidInput(message, reason="REPLAY_DIFFERS")
    return replace(decision, record_id=record.record_id)


def answer_of(decision: Decision) -> str:
    """Returns the SHA-256 of all that a decision says, its cases by id; facts and pictures of cases are left out."""
    rows = [(each.hit.case.case_id, each.hit.similarity, each.value, each.weight) for each in decision.evidence]
    return digest({"decision": replace(decision, evidence=(), record_id=""), "evidence": rows})


def redacted(decision: Decision) -> Decision:
    """Returns the decision as a replay gives it: without facts and pictures of cases, and without its record's id."""
    evidence = tuple(
        replace(piece, hit=Hit(Case(piece.hit.case.case_id, CaseFacts()), piece.hit.similarity))
        for piece in decision.evidence
    )
    return replace(decision, evidence=evidence, record_id="")


def _hash(vector: Embedding | None) -> str:
    return "" if vector is None else hashlib.sha256(np.ascontiguousarray(vector, dtype="<f4").tobytes()).hexdigest()
