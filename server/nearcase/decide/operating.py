"""Choosing the threshold of a call: a fitted point by name, or a threshold of the curve for a target or a cost.

Every choice is a threshold and nothing else: the score does not know of it. A stricter choice never flags more, because
a higher target of sensitivity, a lower one of specificity and a higher cost of a miss never raise the threshold.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from nearcase.decide.curve import CurvePoint, most_misses, patients_needed
from nearcase.decide.fitted import Fitted
from nearcase.decide.point import FittedPoint
from nearcase.decide.rate import check_prevalence
from nearcase.errors import InvalidInput, NotFound, Unsupported

CONFIDENCE = 0.95
"""Of a target that a caller sets: over calibration sets of this size, the threshold keeps it this often."""


@dataclass(frozen=True, slots=True)
class Choice:
    """How sure the decision must be: exactly one of these."""

    name: str = ""  # of a fitted point or pair
    target_sensitivity: float | None = None  # the least sensitivity
    target_specificity: float | None = None  # the least specificity
    cost_ratio: float | None = None  # cost of a missed finding over the cost of a false alarm

    def __post_init__(self) -> None:
        given = [
            each for each in (self.target_sensitivity, self.target_specificity, self.cost_ratio) if each is not None
        ]
        if len(given) + bool(self.name) != 1:
            raise InvalidInput("expected one choice of operating point", field="operating_point")
        for target in (self.target_sensitivity, self.target_specificity):
            if target is not None and not 0.0 < target < 1.0:
                raise InvalidInput(f"expected a target inside 0..1, got {target:g}", field="operating_point")
        if self.cost_ratio is not None and not 0.0 < self.cost_ratio < 1e9:
            raise InvalidInput(
                f"expected a cost ratio above 0 and below 1e9, got {self.cost_ratio:g}", field="operating_point"
            )


@dataclass(frozen=True, slots=True)
class Selected:
    """Where the calls change: positive from the point on; with a rule-out point, negative only below that."""

    point: FittedPoint
    rule_out: FittedPoint | None = None


def select(fitted: Fitted, choice: Choice, prevalence: float | None = None) -> Selected:
    """Returns the point of a choice.

    A target is kept with 95 % confidence in new patients (order statistics of the calibration patients).

    Raises:
        NotFound: No point was fitted under that name.
        Unsupported: With reason TARGET_UNSUPPORTED: the fitted data can not support it; says how many patients could.
        InvalidInput: A cost ratio came without a prevalence.
    """
    if choice.name:
        return _named(fitted, choice.name)
    if not fitted.curve:
        _refuse("a fitted curve to choose a target on, got none")
    if choice.cost_ratio is not None:
        return Selected(_least_cost(fitted, choice.cost_ratio, prevalence))
    if choice.target_sensitivity is not None:
        return Selected(_sensitive(fitted, choice.target_sensitivity))
    return Selected(_specific(fitted, choice.target_specificity or 0.0))  # never 0: one of the four is given


def _named(fitted: Fitted, name: str) -> Selected:
    points = {point.name: point for point in fitted.points}
    if name in points:
        return Selected(points[name])
    for pair in fitted.pairs:
        if pair.name == name:
            return Selected(points[pair.rule_in], points[pair.rule_out])
    for refusal in fitted.refusals:
        if refusal.name == name:
            _refuse(f"a point {name} that the data supports, got none: {refusal.reason}")
    known = ", ".join(fitted.point_names) or "none"
    raise NotFound(
        f"expected an operating point of {fitted.finding} ({known}), got another name",
        reason="OPERATING_POINT_NOT_FOUND",
        field="operating_point",
    )


def _sensitive(fitted: Fitted, target: float) -> FittedPoint:
    """The highest threshold that misses few enough of the calibration positives."""
    patients = fitted.curve[-1].positives_called
    allowed = _allowed(target, patients, sum(part.positive_patients for part in fitted.splits), "with the finding")
    place = next(each for each in fitted.curve if patients - each.positives_called <= allowed)
    return _promised(fitted, place, "sensitivity", target)


def _specific(fitted: Fitted, target: float) -> FittedPoint:
    """The lowest threshold that calls few enough of the calibration negatives."""
    patients = fitted.curve[-1].negatives_called
    allowed = _allowed(target, patients, sum(part.negative_patients for part in fitted.splits), "without the finding")
    quiet = [each for each in fitted.curve if each.negatives_called <= allowed]
    if not quiet:
        _refuse(f"a threshold that calls at most {allowed} of {patients} patients without the finding, got none")
    return _promised(fitted, quiet[-1], "specificity", target)


def _allowed(target: float, patients: int, of_all: int, kind: str) -> int:
    """How many calibration patients may be wrong; of_all are those of every part, of which the calibration has some."""
    allowed = most_misses(patients, target, CONFIDENCE)
    if allowed is None:
        needed = patients_needed(target, CONFIDENCE)
        library = math.ceil(needed * of_all / max(patients, 1))
        _refuse(
            f"{needed} patients {kind} in the calibration part (about {library} in the library) to promise {target!r} "
            f"with confidence {CONFIDENCE!r}, got {patients} in it ({of_all} in the library)"
        )
    return allowed


def _promised(fitted: Fitted, place: CurvePoint, aim: str, target: float) -> FittedPoint:
    promise = f"{aim} of at least {target!r} per {fitted.unit}, with confidence {CONFIDENCE!r}"
    return _point(fitted, place, f"target_{aim}={target!r}", "pac", promise)


def _least_cost(fitted: Fitted, ratio: float, prevalence: float | None) -> FittedPoint:
    """The strictest threshold of the least expected cost in the calibration patients, at a prevalence."""
    if prevalence is None:
        raise InvalidInput("expected a prevalence with a cost ratio, got none", field="prevalence")
    gains = _gains(fitted.curve, ratio * check_prevalence(prevalence), 1.0 - prevalence)
    best = max(range(len(gains)), key=lambda at: (gains[at], -at))
    if gains[best] <= 0.0:
        _refuse(
            f"a finding worth calling at cost ratio {ratio:g} and prevalence {prevalence:g}; calling none costs less"
        )
    return _point(fitted, fitted.curve[best], f"cost_ratio={ratio!r}", "cost", "")


def _gains(curve: Sequence[CurvePoint], of_hit: float, of_alarm: float) -> list[float]:
    positives, negatives = max(curve[-1].positives_called, 1), max(curve[-1].negatives_called, 1)
    return [of_hit * each.positives_called / positives - of_alarm * each.negatives_called / negatives for each in curve]


def at_place(fitted: Fitted, place: CurvePoint) -> FittedPoint:
    """Returns a threshold of the curve as a point without a promise."""
    return _point(fitted, place, f"threshold={place.threshold!r}", "fixed", "")


def _point(fitted: Fitted, place: CurvePoint, name: str, method: str, guarantee: str) -> FittedPoint:
    held_out = fitted.held_out
    return FittedPoint(
        name=name,
        threshold=place.threshold,
        method=method,
        guarantee=guarantee,
        sensitivity=place.sensitivity,
        specificity=place.specificity,
        positive_patients=held_out.positive_patients,
        negative_patients=held_out.negative_patients,
        called_sensitivity=place.called_sensitivity,
        called_specificity=place.called_specificity,
    )


def _refuse(expected: str) -> NoReturn:
    raise Unsupported(f"expected {expected}", reason="TARGET_UNSUPPORTED", field="operating_point")
