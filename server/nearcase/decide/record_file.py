"""The file of a record, from which a case can be erased without the rest losing its proof.

    {"format": "nearcase-record/6", "sha256": SEAL, "body": {...}, "leaves": [LEAF, LEAF, ...]}

What is of a case lies in leaves of its own, each with a random salt: first all that is known of the query, then what
is of all cases at once (the hash of the answer, the names and counts of the library's states), then each prior case, in
the order of the salts, so that no gap tells how similar a missing one was. The body holds the SHA-256 of every leaf,
and the seal is the SHA-256 of the body, which is the record's id too. Erasing a prior case puts null in the place of
its leaf, and of that of all cases: what is left still has the same seal, every other edit breaks it, and without the
salts nobody can try whether a case that they know was there. Of an erased query nothing may be left: its neighbours are
found again by whoever has the image, and their similarities, to the last bit, tell which record was of it.

Only the canonical bytes are taken: a key twice, or a number written in another way, would let two programs read two
records under one seal.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import TYPE_CHECKING, Any, TypeVar

from nearcase.decide.canonical import digest, dump, load, plain
from nearcase.decide.neighbours import Prior, in_order
from nearcase.errors import InvalidInput

if TYPE_CHECKING:
    from nearcase.decide.record import Record

T = TypeVar("T")

FORMAT = "nearcase-record/6"
OLDER = ("nearcase-record/2", "nearcase-record/3", "nearcase-record/4", "nearcase-record/5")
"""Sealed in the same way. The bodies of the first two hold the hash of the answer without a salt, and facts of the
query, and those of the first three name not each of several images that were decided about as one; all hold the name of
the library's state, which can be tried. What names an erased case is not blotted but removed whole."""

MAX_BYTES = 2**24
"""Above any record: 1000 cases and a calibration of thousands of steps are under 1 MiB."""

_QUERY, _SHARED = 0, 1  # places of their leaves

_KEYS = {"format", "sha256", "body", "leaves"}
_ORIGIN = ("image_sha256", "images", "vector_sha256")
_BASIS = ("groups", "is_in_scope", "measured", "image_count")
_LIMITS = ("distance",)
"""What is known of the query, by the part of the record that it is in."""

_OF_ALL = ("kept", "labelled_count", "library")
"""Of the basis: less today's library, they would give back what an erased case was."""

_NAMES = re.compile(rb"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Sealed:
    """A record as a file."""

    record_id: str  # the seal
    data: bytes  # one line, canonical


def write_sealed(record: Record) -> Sealed:
    """Returns the file."""
    body, leaves = _split(record)
    seal = digest(body)
    return Sealed(seal, dump({"format": FORMAT, "sha256": seal, "body": body, "leaves": leaves}) + b"\n")


def read_sealed(kind: type[T], data: bytes) -> T:
    """The inverse of write_sealed.

    Raises:
        InvalidInput: With reason RECORD_INVALID: this is no record, or an edited one. With reason EVIDENCE_ERASED:
            cases were erased from it. With reason RECORD_OLD: an older version wrote it.
    """
    outer = _opened(data)
    if outer["format"] != FORMAT:
        message = f"the record is whole, but of the form {outer['format']}, and this version replays {FORMAT} alone"
        raise InvalidInput(f"{message}: replay it with the version that wrote it", reason="RECORD_OLD")
    erased = outer["leaves"].count(None)
    if erased:
        message = f"the record is whole, but {erased} of its {len(outer['leaves'])} parts were erased with their cases"
        raise InvalidInput(f"{message}: the decision can not be made again", reason="EVIDENCE_ERASED")
    try:
        return load(kind, _joined(outer["body"], outer["leaves"]))
    except (InvalidInput, TypeError, ValueError, KeyError, AttributeError) as error:
        raise _refusal(f"its body has another shape ({type(error).__name__})") from error


def blotted(data: bytes, is_erased: Callable[[str], bool]) -> bytes | None:
    """Returns the file without the leaves that name an erased case; None where it names nothing that was erased.

    Args:
        data: The file.
        is_erased: Of a case id, or of the SHA-256 of an image.

    Raises:
        InvalidInput: It names something erased, and must be removed. With reason EVIDENCE_ERASED: the query is erased.
            With reason RECORD_INVALID: it is no record or was edited. With reason RECORD_OLD: it is of a form from
            which nothing can be erased for good.
    """
    if not any(is_erased(name.decode()) for name in set(_NAMES.findall(data))):
        return None
    outer = _opened(data)
    if outer["format"] != FORMAT:
        message = f"expected a record of the form {FORMAT}, got one of {outer['format']}, which is removed whole"
        raise InvalidInput(message, reason="RECORD_OLD")
    leaves = outer["leaves"]
    if leaves[_QUERY] is None or any(map(is_erased, _named(leaves[_QUERY]))):
        message = "expected a record of an image that is still here, got one of an erased one, which is removed whole"
        raise InvalidInput(message, reason="EVIDENCE_ERASED")
    kept = [
        leaf if leaf and at != _SHARED and not any(map(is_erased, _named(leaf))) else None
        for at, leaf in enumerate(leaves)
    ]
    return dump(outer | {"leaves": kept}) + b"\n"


def _named(leaf: dict[str, Any]) -> list[str]:
    return [*(str(leaf[key]) for key in ("case_id", "image_sha256") if key in leaf), *leaf.get("images", ())]


def _split(record: Record) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Returns body and leaves as plain JSON, so that they hash the same before they are written and after."""
    priors = tuple(replace(prior, similarity=float(prior.similarity)) for prior in record.basis.priors)
    body: dict[str, Any] = plain(replace(record, basis=replace(record.basis, priors=priors), salts=()))
    origin, basis = body["origin"], body["basis"]
    parts = ((origin, _ORIGIN), (basis["limits"], _LIMITS), (basis, _BASIS))
    query = {name: part.pop(name) for part, names in parts for name in names}
    shared = {"answer": body.pop("answer")} | {name: basis.pop(name) for name in _OF_ALL}
    if basis["fit"]:
        shared["fit_library"] = basis["fit"].pop("library")
    del body["salts"]
    of_query, of_all, *of_priors = record.salts
    ordered = sorted(zip(of_priors, basis.pop("priors"), strict=True), key=itemgetter(0))
    pairs = [(of_query, query), (of_all, shared), *ordered]
    leaves = [{**leaf, "salt": salt} for salt, leaf in pairs]
    return body | {"leaves": [digest(leaf) for leaf in leaves]}, leaves


def _joined(body: dict[str, Any], leaves: list[dict[str, Any]]) -> dict[str, Any]:
    salts = [leaf["salt"] for leaf in leaves[2:]]
    if salts != sorted(salts):  # else one record would have files of several seals
        raise ValueError("expected leaves in the order of their salts")
    nearest_first = sorted(leaves[2:], key=lambda leaf: in_order(load(Prior, _unsalted(leaf))))
    query, shared, *priors = map(_unsalted, [*leaves[:2], *nearest_first])
    whole = {key: value for key, value in body.items() if key != "leaves"}
    basis = whole["basis"]
    limits = basis["limits"] | {name: query.pop(name) for name in _LIMITS}
    basis = basis | {"limits": limits, "priors": priors} | {name: query.pop(name) for name in _BASIS}
    if basis["fit"]:
        basis |= {"fit": basis["fit"] | {"library": shared.pop("fit_library")}}
    basis |= {name: shared.pop(name) for name in _OF_ALL}
    whole |= {"origin": whole["origin"] | query, "basis": basis}
    return whole | shared | {"salts": [leaf["salt"] for leaf in (*leaves[:2], *nearest_first)]}


def _unsalted(leaf: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in leaf.items() if key != "salt"}


def _opened(data: bytes) -> dict[str, Any]:
    """Returns the file's JSON, whose seal and leaves are what they were when it was written, or erased."""
    if len(data) > MAX_BYTES:
        raise _refusal(f"it has more than {MAX_BYTES} bytes")
    try:
        outer = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _refusal("it is no JSON") from error
    if not isinstance(outer, dict) or set(outer) != _KEYS or outer["format"] not in (FORMAT, *OLDER):
        raise _refusal("it is another kind of JSON")
    if _canonical(outer) != data.strip():
        raise _refusal("it is written in another way")
    body, leaves = outer["body"], outer["leaves"]
    if not isinstance(body, dict) or _digest(body) != outer["sha256"]:
        raise _refusal("its body was edited")
    hashes = body.get("leaves")
    if not isinstance(hashes, list) or not isinstance(leaves, list) or not leaves or len(hashes) != len(leaves):
        raise _refusal("it has other leaves than it says")
    for leaf, expected in zip(leaves, hashes, strict=True):
        if leaf is not None and (not isinstance(leaf, dict) or _digest(leaf) != expected):
            raise _refusal("a leaf was edited")
    return outer


def _canonical(value: object) -> bytes:
    """Returns b"" for what was never written: NaN, or JSON nested too deep."""
    try:
        return dump(value)
    except (InvalidInput, RecursionError):
        return b""


def _digest(value: object) -> str:
    """Returns "" for what was never written: NaN, or JSON nested too deep."""
    try:
        return digest(value)
    except (InvalidInput, RecursionError):
        return ""


def _refusal(why: str) -> InvalidInput:
    return InvalidInput(f"expected a file {FORMAT} as it was written, but {why}", reason="RECORD_INVALID")
