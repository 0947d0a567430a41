"""Operating points: chosen on the calibration images, told of the held-out ones, refused where the data is too thin."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nearcase.decide.curve import CurvePoint
from nearcase.decide.fitted import Split
from nearcase.decide.point import FittedPoint, Pair, Refusal
from nearcase.decide.rate import Rate
from nearcase.errors import InvalidInput
from nearcase_eval.proportions import rate_of
from nearcase_eval.sample import Bools, Sample
from nearcase_eval.thresholds import (
    Aim,
    Threshold,
    Unit,
    conformal,
    empirical,
    independent_scores,
    least_cost,
    pac,
    youden,
)

_TARGET = re.compile(r"(sensitivity|specificity)=(0?\.\d+):(empirical|conformal|pac)")
_COST = re.compile(r"cost=(\d+(?:\.\d+)?)@(0?\.\d+)")
METHODS = ("empirical", "conformal", "pac")
DEFAULT = (
    *(
        f"{aim}={target}:{method}"
        for aim in ("sensitivity", "specificity")
        for target in ("0.90",)
        for method in METHODS
    ),
    "sensitivity=0.95:pac",
    "specificity=0.95:pac",
    "youden",
)
PAIR = ("rule-in-out", "specificity-95-pac", "sensitivity-95-pac")


@dataclass(frozen=True, slots=True)
class Wish:
    """A point that is asked of the data."""

    name: str
    method: str
    aim: Aim = "sensitivity"
    target: float = 0.0
    cost: float = 0.0  # of a miss, over that of a false alarm
    prevalence: float = 0.0


@dataclass(frozen=True, slots=True)
class Points:
    """What the data gave."""

    points: tuple[FittedPoint, ...]
    pairs: tuple[Pair, ...]
    refusals: tuple[Refusal, ...]


def read_wish(text: str) -> Wish:
    """Returns what a text asks for: sensitivity=0.90:pac, specificity=0.95:empirical, youden or cost=10@0.02.

    Raises:
        InvalidInput: The text has another form.
    """
    if text == "youden":
        return Wish("youden", "youden")
    if found := _TARGET.fullmatch(text):
        target = float(found[2])
        name = f"{found[1]}-{f'{100 * target:g}'.replace('.', '_')}-{found[3]}"
        return Wish(name, found[3], "sensitivity" if found[1] == "sensitivity" else "specificity", target)
    if (found := _COST.fullmatch(text)) and float(found[1]) > 0.0 < float(found[2]):
        return Wish(f"cost-{found[1]}-at-{found[2]}", "cost", cost=float(found[1]), prevalence=float(found[2]))
    raise InvalidInput(
        f"expected a point like sensitivity=0.90:pac, youden or cost=10@0.02, got {text!r}", field="point"
    )


def fit_points(
    wishes: Sequence[Wish], calibration: Sample, test: Sample, held_out: Split, *, confidence: float, seed: int
) -> Points:
    """Returns each wished point or its refusal, and the rule-in / rule-out pair where its two points leave room."""
    points: dict[str, FittedPoint] = {}
    refusals: list[Refusal] = []
    for wish in wishes:
        chosen = _choose(wish, calibration, confidence, seed)
        if chosen.value is None:
            refusals.append(Refusal(wish.name, chosen.reason, chosen.patients_needed, chosen.patients))
            continue
        sensitivity, specificity = held_out_rates(test, chosen.value)
        points[wish.name] = FittedPoint(
            name=wish.name,
            threshold=chosen.value,
            method=chosen.method,
            guarantee="" if chosen.guarantee.startswith("none") else chosen.guarantee,
            sensitivity=sensitivity,
            specificity=specificity,
            positive_patients=held_out.positive_patients,
            negative_patients=held_out.negative_patients,
        )
    return Points(tuple(points.values()), _pairs(points), tuple(refusals))


def _pairs(points: dict[str, FittedPoint]) -> tuple[Pair, ...]:
    """None where a point was refused, or where ruling out reaches as far as ruling in: no score is between them."""
    name, rule_in, rule_out = PAIR
    if rule_in in points and rule_out in points and points[rule_in].threshold > points[rule_out].threshold:
        return (Pair(name, rule_in, rule_out),)
    return ()


def _choose(wish: Wish, data: Sample, confidence: float, seed: int) -> Threshold:
    rows = (data.truth, data.score)
    if wish.method == "youden":
        return youden(*rows)
    if wish.method == "cost":
        return least_cost(*rows, miss=wish.cost, false_alarm=1.0, prevalence=wish.prevalence)
    if wish.method == "empirical":
        return empirical(*rows, wish.aim, wish.target, patient=data.patient)
    if wish.method == "conformal":
        return conformal(*rows, wish.aim, wish.target, patient=data.patient, seed=seed)
    return pac(*rows, wish.aim, wish.target, confidence=confidence, patient=data.patient, seed=seed)


def held_out_rates(test: Sample, threshold: float) -> tuple[Rate, Rate]:
    """Returns (sensitivity, specificity) of calling everyone at or above a threshold."""
    called = test.score >= threshold
    return _rate(test, called, test.truth), _rate(test, ~called, ~test.truth)


def _rate(data: Sample, hits: Bools, among: Bools) -> Rate:
    found = rate_of(hits[among], data.patient[among], data.patients)
    if found is None:
        raise InvalidInput("expected held-out images with and without the finding, got one kind only")
    return Rate(found.value, found.effective_n)


def curve_points(calibration: Sample, test: Sample, *, seed: int) -> tuple[CurvePoint, ...]:
    """Returns every threshold of one score for each calibration patient, strictest first; the first calls nobody."""
    positives = independent_scores(calibration, "sensitivity", Unit.IMAGE, seed)
    negatives = independent_scores(calibration, "specificity", Unit.IMAGE, seed)
    values = np.unique(np.concatenate([positives, negatives]))[::-1]
    thresholds = [float(np.nextafter(values[0], np.inf)), *map(float, values)]
    return tuple(
        CurvePoint(
            threshold,
            int((positives >= threshold).sum()),
            int((negatives >= threshold).sum()),
            *held_out_rates(test, threshold),
        )
        for threshold in thresholds
    )
