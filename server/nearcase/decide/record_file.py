"""The file of a record, from which a case can be erased without the rest losing its proof.

    {"format": "nearcase-record/3", "sha256": SEAL, "body": {...}, "leaves": [LEAF, LEAF, ...]}

What names a case lies in leaves of its own: the query's hashes first, then each prior case, each with a random salt.
The body holds the SHA-256 of every leaf, and the seal is the SHA-256 of the body, which is the record's id too. Erasing
puts null in the place of a leaf: what is left still has the same seal, every other edit breaks it, and without the salt
nobody can try whether a case that they know was there.

Only the canonical bytes are taken: a key twice, or a number written in another way, would let two programs read two
records under one seal.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, TypeVar

from nearcase.decide.canonical import digest, dump, load
from nearcase.errors import InvalidInput

if TYPE_CHECKING:
    from nearcase.decide.record import Record

T = TypeVar("T")

FORMAT = "nearcase-record/3"
OLDER = ("nearcase-record/2",)
"""Sealed in the same way, so that cases are erased from them too; what they hold is less than a decision takes now."""

MAX_BYTES = 2**24
"""Above any record: 1000 cases and a calibration of thousands of steps are under 1 MiB."""

_KEYS = {"format", "sha256", "body", "leaves"}
_QUERY = ("image_sha256", "vector_sha256")
_NAMES = re.compile(rb"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{64}")


def seal_of(record: Record) -> str:
    """Returns what seals a record."""
    return digest(_body(record, _leaves(record)))


def write_sealed(record: Record) -> bytes:
    """Returns the file: one line, canonical."""
    leaves = _leaves(record)
    body = _body(record, leaves)
    return dump({"format": FORMAT, "sha256": digest(body), "body": body, "leaves": leaves}) + b"\n"


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
    except (InvalidInput, TypeError, KeyError, AttributeError) as error:
        raise _refusal(f"its body has another shape ({type(error).__name__})") from error


def blotted(data: bytes, is_erased: Callable[[str], bool]) -> bytes | None:
    """Returns the file without the leaves that name something erased; None where it names nothing of that.

    Args:
        data: The file.
        is_erased: Of a case id, or of the SHA-256 of an image.

    Raises:
        InvalidInput: With reason RECORD_INVALID: it names something erased, and is no record or was edited.
    """
    if not any(is_erased(name.decode()) for name in set(_NAMES.findall(data))):
        return None
    outer = _opened(data)
    kept = [leaf if leaf and not any(map(is_erased, _named(leaf))) else None for leaf in outer["leaves"]]
    return dump(outer | {"leaves": kept}) + b"\n"


def _named(leaf: dict[str, Any]) -> list[str]:
    return [str(leaf[key]) for key in ("case_id", "image_sha256") if key in leaf]


def _leaves(record: Record) -> list[dict[str, Any]]:
    query = {name: getattr(record.origin, name) for name in _QUERY}
    priors = [asdict(replace(prior, similarity=float(prior.similarity))) for prior in record.basis.priors]
    return [{**leaf, "salt": salt} for leaf, salt in zip([query, *priors], record.salts, strict=True)]


def _body(record: Record, leaves: list[dict[str, Any]]) -> dict[str, Any]:
    """As plain JSON, so that it hashes the same before it is written and after it is read."""
    body: dict[str, Any] = json.loads(dump(replace(record, basis=replace(record.basis, priors=()), salts=())))
    for name in _QUERY:
        del body["origin"][name]
    del body["salts"], body["basis"]["priors"]
    return body | {"leaves": [digest(leaf) for leaf in leaves]}


def _joined(body: dict[str, Any], leaves: list[dict[str, Any]]) -> dict[str, Any]:
    query, *priors = ({key: value for key, value in leaf.items() if key != "salt"} for leaf in leaves)
    whole = {key: value for key, value in body.items() if key != "leaves"}
    whole["origin"] = whole["origin"] | query
    whole["basis"] = whole["basis"] | {"priors": priors}
    return whole | {"salts": [leaf["salt"] for leaf in leaves]}


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
