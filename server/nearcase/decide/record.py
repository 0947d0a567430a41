"""The record of a decision: enough to make the same decision again, bit for bit, and to see what changed since.

Floats are written as the shortest text that reads back as the same bits. It names prior cases by id and holds no other
patient data: see `basis`. How it lies in a file, and how a case is erased from it later, is in `record_file`.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from nearcase.decide.basis import Basis
from nearcase.decide.canonical import digest
from nearcase.decide.fitted import Fitted
from nearcase.decide.inquiry import PLAIN, Inquiry
from nearcase.decide.record_file import read_sealed, write_sealed
from nearcase.decide.verdict import verdict
from nearcase.errors import InvalidInput
from nearcase.types import Case, CaseFacts, Decision, Hit

if TYPE_CHECKING:
    from nearcase.types import Embedding


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the basis came from, as hashes: who holds the files can prove that they are these."""

    image_sha256: str
    vector_sha256: str  # of the embedding's float32 bytes
    fitted_sha256: str  # of the fit's body; "" without one
    at_s: float  # seconds since 1970, UTC
    made_by: str  # program and version
    is_keyed: bool = False  # the image's hash is a keyed one, which only the server that made it can compare
    images: tuple[str, ...] = ()  # of several that were decided about as one, the hash of each, so that it is found

    @classmethod
    def of(
        cls,
        *,
        image_sha256: str,
        vector: Embedding | None,
        fitted: Fitted | None,
        at_s: float,
        made_by: str,
        is_keyed: bool = False,
        images: tuple[str, ...] = (),
    ) -> Origin:
        """Returns the hashes of what is given."""
        return cls(image_sha256, _hash(vector), fitted.sha256 if fitted else "", at_s, made_by, is_keyed, images)


@dataclass(frozen=True, slots=True)
class Record:
    """One decision as it was made."""

    origin: Origin
    basis: Basis
    answer: str  # SHA-256 of what was decided, see answer_of
    inquiry: Inquiry = PLAIN  # how it was asked for
    salts: tuple[str, ...] = ()  # one for each leaf of the file: the query's, that of all cases, and each prior case's

    @property
    def record_id(self) -> str:
        """What seals the record's file, see `record_file`; the same after cases were erased from it."""
        return write_sealed(self).record_id


def record_of(basis: Basis, decision: Decision, origin: Origin, inquiry: Inquiry, secret: bytes) -> Record:
    """Returns the record of a decision that was made from a basis; the secret, of 32 bytes, makes its salts."""
    salts = tuple(hmac.digest(secret, b"%d" % leaf, "sha256").hex()[:32] for leaf in range(2 + len(basis.priors)))
    return Record(origin, basis, answer_of(decision), inquiry, salts)


def write_record(record: Record) -> bytes:
    """Returns the file: one line, canonical."""
    return write_sealed(record).data


def read_record(data: bytes) -> Record:
    """Returns the record.

    Raises:
        InvalidInput: With reason RECORD_INVALID: the bytes are no record, or were edited since they were written. With
            reason EVIDENCE_ERASED: they are whole, but cases were erased from them, so nothing can be decided again.
            With reason RECORD_OLD: an older version wrote them, of which this one can not make the decision again.
    """
    return read_sealed(Record, data)


def replay(record: Record) -> Decision:
    """Returns the decision again, from the record alone; its evidence has of each case only the id.

    Raises:
        InvalidInput: With reason REPLAY_DIFFERS: this program decides otherwise from the same basis. With reason
            RECORD_INVALID: nothing can be computed from it, as no record that was kept is.
    """
    try:
        decision = verdict(record.basis)
    except (ArithmeticError, AssertionError, LookupError, TypeError, ValueError) as error:
        message = "expected a record that a decision was made from, got numbers that nothing can be computed from"
        raise InvalidInput(message, reason="RECORD_INVALID") from error
    if answer_of(decision) != record.answer:
        message = "expected the decision that was recorded, got another: this version or machine computes otherwise"
        raise InvalidInput(message, reason="REPLAY_DIFFERS")
    return replace(decision, record_id=record.record_id)


def answer_of(decision: Decision) -> str:
    """Returns the SHA-256 of all that a decision says, its cases by id; facts and pictures of cases are left out."""
    rows = [(each.hit.case.case_id, each.hit.similarity, each.value, each.weight) for each in decision.evidence]
    return digest({"decision": replace(decision, evidence=(), record_id=""), "evidence": rows})


def redacted(decision: Decision) -> Decision:
    """Returns the decision as a replay gives it: at its own point alone, without its id and facts of cases."""
    evidence = tuple(
        replace(piece, hit=Hit(Case(piece.hit.case.case_id, CaseFacts()), piece.hit.similarity))
        for piece in decision.evidence
    )
    return replace(decision, evidence=evidence, record_id="", point_calls=())


def _hash(vector: Embedding | None) -> str:
    return "" if vector is None else hashlib.sha256(np.ascontiguousarray(vector, dtype="<f4").tobytes()).hexdigest()
