"""What became of a recorded decision: the same question asked of today's library."""

from __future__ import annotations

from dataclasses import dataclass

from nearcase.decide.basis import Basis
from nearcase.decide.canonical import digest
from nearcase.decide.fitted import Values
from nearcase.decide.record import Record
from nearcase.decide.verdict import verdict
from nearcase.types import Decision

_KEPT = "labelled cases not written since the fit"
"""In scope, by value: where an embedding or a label was replaced, the name and the number of cases may be the same."""


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that is not as it was; "" where it was not, or is not, there."""

    what: str
    was: str
    now: str


def compare(record: Record, today: Record) -> tuple[Change, ...]:
    """Returns what differs between a recorded decision and that of today: causes first, then the cases, then the call.

    Floats are compared bit for bit. Nothing differs exactly where the same would be decided from the same cases.
    """
    return (*_causes(record, today), *_cases(record.basis, today.basis), *_results(record.basis, today.basis))


def _causes(record: Record, today: Record) -> tuple[Change, ...]:
    was, now = _cause_values(record), _cause_values(today)
    if record.basis.kept is not None and today.basis.kept is not None:
        was[_KEPT], now[_KEPT] = _values(record.basis.kept), _values(today.basis.kept)
    return _differences(was, now)


def _cause_values(record: Record) -> dict[str, str]:
    basis, origin = record.basis, record.origin
    return {
        "image": origin.image_sha256,
        "embedding": origin.vector_sha256,
        "encoder": basis.encoder,
        "library": basis.library.snapshot,
        "labelled cases": str(basis.library.labelled_count),
        "labelled cases in scope": _text(basis.labelled_count),
        "finding": basis.finding.version,
        "finding's definition": digest(basis.finding),
        "fit": origin.fitted_sha256,
        "prevalence": _text(basis.prevalence),
        "patient": "known" if record.inquiry.has_patient else "not known",
        "groups": ", ".join(f"{group.attribute} {group.name}" for group in basis.groups),
        "program": origin.made_by,
    }


def _values(kept: Values) -> str:
    return ", ".join(f"{value or 'others'}: {count}" for value, count in kept)


def _cases(was: Basis, now: Basis) -> tuple[Change, ...]:
    """By case id: gone, come, or with another similarity or value."""
    return _differences(_prior_values(was), _prior_values(now))


def _prior_values(basis: Basis) -> dict[str, str]:
    return {f"case {prior.case_id}": f"{prior.similarity!r} {prior.value}" for prior in basis.priors}


def _results(was: Basis, now: Basis) -> tuple[Change, ...]:
    return _differences(_result_values(verdict(was)), _result_values(verdict(now)))


def _result_values(decision: Decision) -> dict[str, str]:
    point, measurement = decision.operating_point, decision.measurement
    return {
        "score": _text(decision.score),
        "probability": _text(decision.probability),
        "operating point": f"{point.name} at {point.threshold!r}" if point else "",
        "measurement": _text(measurement.mean) if measurement else "",
        "call": decision.call.value,
        "reason": decision.abstain_reason,
    }


def _differences(was: dict[str, str], now: dict[str, str]) -> tuple[Change, ...]:
    names = [*was, *(name for name in now if name not in was)]
    changes = (Change(name, was.get(name, ""), now.get(name, "")) for name in names)
    return tuple(change for change in changes if change.was != change.now)


def _text(value: float | None) -> str:
    return "" if value is None else repr(value)
