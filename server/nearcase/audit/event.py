"""What a record of the audit trail says: one frozen object, and its one line of JSON.

Nothing of a patient is in it: cases, patients, files and filters are keyed names (see `key`). Who asked is in clear,
since that is what the trail is for.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

BEGIN, PART, END = "begin", "part", "end"
"""Phases of a call: one that changes something, or gives cases away, has a record before it does; a stream has parts
too."""

CALL, REFUSED, START, STOP = "call", "refused", "start", "stop"
FILE, FULL, RESUMED, DAMAGED, TORN = "file", "full", "resumed", "damaged", "torn"
ERASED = "erased"
KINDS = (CALL, REFUSED, START, STOP, ERASED, FILE, FULL, RESUMED, DAMAGED, TORN)
"""What happened: a call; calls that were not let in; the server starts or stops; it erased by age, unasked. The rest is
of the trail itself: a file begins, the disk was full or has room again, records are not as they were, a torn line was
set aside."""


MOST_COUNT = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Said:
    """What was said of one finding."""

    finding: str = ""
    call: str = ""
    reason: str = ""  # of an abstention
    operating_point: str = ""
    rule_out_point: str = ""
    record_id: str = ""  # from which the decision can be made again


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """One thing that happened."""

    kind: str
    at_s: float  # seconds since 1970, UTC, by a clock that may jump: records are ordered by their numbers
    request_id: str = ""
    phase: str = ""
    rpc: str = ""
    code: str = ""  # name of the gRPC status
    reason: str = ""  # of a refusal
    caller: str = ""
    tenant: str = ""
    peer: str = ""  # keyed name of the address
    about: tuple[str, ...] = ()  # keyed names of what was asked about: a file, a patient, a study, a filter
    cases: tuple[str, ...] = ()  # keyed names of the cases that were shown, added, changed or erased
    patients: tuple[str, ...] = ()  # keyed names of their patients
    count: int = 0  # of cases, or of what `detail` says
    encoder: str = ""
    library: str = ""  # names the state of the library; empty where nothing had named it yet
    decisions: tuple[Said, ...] = ()
    target: str = ""  # of an erasure: case, instance, series, study, patient or retention
    detail: str = ""


def event_to_json(event: AuditEvent) -> dict[str, Any]:
    """Returns what a line holds of an event; what is empty is left out."""
    line: dict[str, Any] = {"kind": event.kind, "at": _written(event.at_s)}
    for name in _NAMES:
        value = getattr(event, name)
        if value:
            line[name] = value
    if event.decisions:
        line["decisions"] = [
            {name: getattr(said, name) for name in _SAID if getattr(said, name)} for said in event.decisions
        ]
    return line


def event_from_json(line: Mapping[str, Any]) -> AuditEvent:
    """The inverse.

    Raises:
        ValueError: The object is no event.
    """
    try:
        given = {name: _value(name, line[name]) for name in _NAMES if name in line}
        decisions = tuple(
            Said(**{name: _text(text) for name, text in said.items()}) for said in line.get("decisions", ())
        )
        return AuditEvent(kind=_text(line["kind"]), at_s=_read(line["at"]), decisions=decisions, **given)
    except (KeyError, TypeError, AttributeError, OverflowError, OSError) as error:
        raise ValueError("no event") from error


def dumped(line: Mapping[str, Any]) -> bytes:
    """Returns an object as one line of JSON, without its end."""
    return json.dumps(line, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


def _written(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).isoformat(timespec="microseconds")


def _read(at: str) -> float:
    """A moment that has no year of four digits in UTC could not be shown again."""
    at_s = datetime.fromisoformat(at).timestamp()
    datetime.fromtimestamp(at_s, UTC)
    return at_s


def _value(name: str, given: object) -> Any:
    if name == "count":
        if type(given) is not int or not 0 <= given <= MOST_COUNT:
            raise TypeError
        return given
    if name not in _LISTS:
        return _text(given)
    if not isinstance(given, list):
        raise TypeError
    return tuple(map(_text, given))


def _text(given: object) -> str:
    """Half a surrogate pair, which JSON can hold, could not be printed."""
    if not isinstance(given, str):
        raise TypeError
    return given.encode("utf-8", "replace").decode()


_LISTS = ("about", "cases", "patients")
_NAMES = tuple(
    field.name for field in dataclasses.fields(AuditEvent) if field.name not in ("kind", "at_s", "decisions")
)
_SAID = tuple(field.name for field in dataclasses.fields(Said))
