"""The file that `threshold` writes: operating points that were chosen on calibration rows, with what they promise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nearcase.errors import InvalidInput
from nearcase_eval.audit.frame import Frame, Outcome, frame_of
from nearcase_eval.audit.plan import Plan, PointRule, point_rule, prevalences
from nearcase_eval.audit.points import chooser
from nearcase_eval.audit.report import Input
from nearcase_eval.audit.roles import Roles
from nearcase_eval.audit.source import Table
from nearcase_eval.estimate import Estimate
from nearcase_eval.operating import operating_point_of
from nearcase_eval.sample import Sample

FORMAT = "nearcase-operating-points/1"


def choose(
    table: Table, metadata: Table | None, roles: Roles, options: Mapping[str, Any], inputs: Sequence[Input]
) -> dict[str, Any]:
    """Returns the file's content.

    Raises:
        InvalidInput: There is no rule, or a promise can not be given: the message says how many patients it needs.
    """
    rules = tuple(point_rule(text) for text in options["points"])
    if not rules:
        raise InvalidInput("expected a rule such as --op sens=0.95:pac@0.05", field="op")
    parts, held_out = tuple(options["calibrate"]), tuple(options["test"])
    if roles.split and not parts:
        raise InvalidInput(
            "expected --calibrate PART: which part of the split may be used to choose", field="calibrate"
        )
    # Without a part to hold out, the calibration rows are all that is used: to the frame they are its test part.
    plan = Plan(
        points=rules,
        seed=options["seed"],
        prevalences=prevalences(options["prevalence"]),
        calibrate=parts if held_out else (),
        test=held_out or parts,
    )
    frame = frame_of(table, roles, plan, metadata=metadata)
    found = [_entry(frame, outcome, rule, plan, bool(held_out)) for outcome in frame.outcomes for rule in rules]
    return {
        "format": FORMAT,
        "inputs": [{"name": each.name, "sha256": each.sha256, "rows": each.rows} for each in inputs],
        "calibration": list(parts) or ["all rows"],
        "unit": "patient" if frame.has_patients else "row",
        "seed": plan.seed,
        "operating_points": found,
    }


def _entry(frame: Frame, outcome: Outcome, rule: PointRule, plan: Plan, has_test: bool) -> dict[str, Any]:
    source = frame.sample(outcome, frame.usable(outcome, frame.calibrate if has_test else frame.test))
    chosen = chooser(rule, plan)(source.truth, source.score, source.patient)
    if chosen.value is None:
        raise InvalidInput(f"{outcome.finding.name} at {rule.text}: no threshold, {chosen.reason}", field="op")
    test = frame.sample(outcome, frame.usable(outcome, frame.test)) if has_test else None
    return {
        "finding": outcome.finding.name,
        "name": rule.text,
        "call": "positive when score >= threshold",
        "threshold": chosen.value,
        "method": chosen.method,
        "aim": chosen.aim,
        "target": chosen.target,
        "confidence": chosen.confidence,
        "guarantee": chosen.guarantee,
        "promise_unit": chosen.unit,
        "patients": chosen.patients,
        "patients_needed": chosen.patients_needed,
        "rows": source.n,
        "positives": source.positives,
        "held_out": _held_out(test, chosen.value) if test else None,
    }


def _held_out(test: Sample, threshold: float) -> dict[str, Any]:
    point = operating_point_of(test, threshold)
    return {
        "sensitivity": _interval(point.sensitivity),
        "specificity": _interval(point.specificity),
        "positive_patients": test.patients_among(test.truth),
        "negative_patients": test.patients_among(~test.truth),
    }


def _interval(estimate: Estimate) -> dict[str, float | None]:
    return {"value": estimate.value, "low": estimate.low, "high": estimate.high, "level": estimate.level}
