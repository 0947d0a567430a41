"""One line of the trail: its number, the SHA-256 of the line before, the event, and a seal over all of it.

    {"seq":7,"prev":"SHA-256 of line 6","kind":"call","at":"2026-11-23T...","rpc":"...", ... ,"mac":"HMAC-SHA256"}

Lines are compared as bytes, never as JSON that was read and written again.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from nearcase.audit.event import MOST_COUNT, AuditEvent, dumped, event_from_json, event_to_json
from nearcase.audit.key import AuditKey

NOTHING = "0" * 64
"""What the first line of all has for the line before it."""

_MARK = b',"mac":"'
_TAIL = len(_MARK) + 64 + 2  # the mark, 64 digits, and "}


@dataclass(frozen=True, slots=True)
class Kept:
    """A record as it lies in a file."""

    seq: int
    prev: str
    event: AuditEvent
    sha256: str  # of its line
    file: str = ""
    line: int = 0  # in the file, from 1


def written(seq: int, prev: str, event: AuditEvent, key: AuditKey) -> bytes:
    """Returns the line of an event, without its end."""
    body = dumped({"seq": seq, "prev": prev, **event_to_json(event)})[:-1]
    return body + _MARK + key.seal(body).encode() + b'"}'


def hash_of(line: bytes) -> str:
    """Returns what the next line must have as `prev`."""
    return hashlib.sha256(line).hexdigest()


def is_sealed(line: bytes, key: AuditKey) -> bool:
    """Returns whether the line is as it was written by who has the key."""
    body, seal = line[:-_TAIL], line[-_TAIL:]
    return seal == _MARK + key.seal(body).encode() + b'"}'


def read(line: bytes) -> Kept:
    """Returns the record of a line, whether or not its seal is right.

    Raises:
        ValueError: It is no record.
    """
    try:
        found = json.loads(line)
        seq, prev = found["seq"], found["prev"]
        if (
            type(seq) is not int
            or not 1 <= seq <= MOST_COUNT
            or not isinstance(prev, str)
            or not isinstance(found["mac"], str)
        ):
            raise ValueError
        return Kept(seq, prev, event_from_json(found), hash_of(line))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError("no record") from error
