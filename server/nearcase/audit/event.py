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
        given = {name: line[name] for name in _NAMES if name in line}
        for name in ("about", "cases", "patients"):
            given[name] = tuple(map(str, given.get(name, ())))
        decisions = tuple(Said(**said) for said in line.get("decisions", ()))
        at_s = datetime.fromisoformat(line["at"]).timestamp()
        return AuditEvent(kind=str(line["kind"]), at_s=at_s, decisions=decisions, **given)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError("no event") from error


def dumped(line: Mapping[str, Any]) -> bytes:
    """Returns an object as one line of JSON, without its end."""
    return json.dumps(line, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


def _written(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).isoformat(timespec="microseconds")


_NAMES = tuple(
    field.name for field in dataclasses.fields(AuditEvent) if field.name not in ("kind", "at_s", "decisions")
)
_SAID = tuple(field.name for field in dataclasses.fields(Said))
