"""Operating points: chosen on the calibration patients, told of the held-out ones, refused where they are too few.

Each patient weighs once, however many images they have: thresholds are chosen on one image of each patient, drawn by
the seed, and in a held-out rate each patient counts once, by the share of their images. Both are of an image of a new
patient, which is what a server decides about.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

import numpy as np

from nearcase.decide.curve import CurvePoint
from nearcase.decide.groups import DIGITS
from nearcase.decide.point import FittedPoint, Pair, Refusal
from nearcase.decide.rate import Rate
from nearcase.errors import InvalidInput
from nearcase_eval.sample import Bools, Floats, Sample
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

_TARGET = re.compile(r"(sensitivity|specificity)=(0?\.\d{1,12}):(empirical|conformal|pac)")
_COST = re.compile(r"cost=(\d{1,9}(?:\.\d{1,9})?)@(0?\.\d{1,12})")
AIMS: tuple[Aim, Aim] = ("sensitivity", "specificity")
METHODS = ("empirical", "conformal", "pac")
DEFAULT = (
    *(f"{aim}={target}:{method}" for aim in AIMS for target in ("0.90",) for method in METHODS),
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

    Its name is exact, so that two targets never have one name.

    Raises:
        InvalidInput: The text has another form.
    """
    if text == "youden":
        return Wish("youden", "youden")
    if (found := _TARGET.fullmatch(text)) and (target := float(found[2])) > 0.0:
        name = f"{found[1]}-{_exactly(100 * Decimal(found[2])).replace('.', '_')}-{found[3]}"
        return Wish(name, found[3], "sensitivity" if found[1] == "sensitivity" else "specificity", target)
    if (found := _COST.fullmatch(text)) and float(found[1]) > 0.0 < float(found[2]):
        name = f"cost-{_exactly(Decimal(found[1]))}-at-{_exactly(Decimal(found[2]))}"
        return Wish(name, "cost", cost=float(found[1]), prevalence=float(found[2]))
    raise InvalidInput(
        f"expected a point like sensitivity=0.90:pac, youden or cost=10@0.02, got {text!r}", field="point"
    )


def read_wishes(texts: Sequence[str]) -> tuple[Wish, ...]:
    """Returns what the texts ask for.

    Raises:
        InvalidInput: A text has another form, or asks for what one before it does.
    """
    wishes = tuple(map(read_wish, texts))
    check_wishes(wishes)
    return wishes


def check_wishes(wishes: Sequence[Wish]) -> None:
    """Refuses two points of one name.

    Raises:
        InvalidInput: Where that is so.
    """
    names = [wish.name for wish in wishes]
    for at, name in enumerate(names):
        if name in names[:at]:
            raise InvalidInput(f"expected different points, got {name} twice", field="point")


def _exactly(number: Decimal) -> str:
    """In plain digits, as few as there are."""
    return f"{number.normalize():f}"


def fit_points(
    wishes: Sequence[Wish], calibration: Sample, test: Sample, *, confidence: float, seed: int, share: float
) -> Points:
    """Returns each wished point or its refusal, and the rule-in / rule-out pair where its two points leave room.

    The share is that of the library's patients who are in the calibration part: refusals say what the library needs.
    """
    check_wishes(wishes)
    drawn = one_image_each(calibration, seed)
    positive_patients, negative_patients = test.patients_among(test.truth), test.patients_among(~test.truth)
    points: dict[str, FittedPoint] = {}
    refusals: list[Refusal] = []
    for wish in wishes:
        chosen = choose(wish, drawn, confidence)
        if chosen.value is None:
            reason = _refused(wish, chosen, share)
            refusals.append(Refusal(wish.name, reason, chosen.patients_needed, chosen.patients))
            continue
        ((sensitivity, specificity),) = held_out_rates(test, np.array([chosen.value]))
        points[wish.name] = FittedPoint(
            name=wish.name,
            threshold=chosen.value,
            method=chosen.method,
            guarantee="" if chosen.guarantee.startswith("none") else chosen.guarantee,
            sensitivity=sensitivity,
            specificity=specificity,
            positive_patients=positive_patients,
            negative_patients=negative_patients,
        )
    return Points(tuple(points.values()), _pairs(points), tuple(refusals))


def _refused(wish: Wish, chosen: Threshold, share: float) -> str:
    """Why, in patients of the calibration part, and of the library that would give it so many."""
    if wish.method not in METHODS:
        return chosen.reason
    kind = "with the finding" if wish.aim == "sensitivity" else "without the finding"
    return (
        f"needs at least {chosen.patients_needed} patients {kind} in the calibration part, which has "
        f"{chosen.patients}; that takes about {math.ceil(chosen.patients_needed / share)} in the library"
    )


def one_image_each(data: Sample, seed: int) -> Sample:
    """Returns one image with, and one without, the finding of each patient who has such: independent draws."""
    scores = [independent_scores(data, aim, Unit.IMAGE, seed) for aim in AIMS]
    truth = np.repeat([True, False], [each.size for each in scores])
    return Sample(truth, np.concatenate(scores), np.arange(truth.size), truth.size)


def _pairs(points: dict[str, FittedPoint]) -> tuple[Pair, ...]:
    """None where a point was refused, or where ruling out reaches as far as ruling in: no score is between them."""
    name, rule_in, rule_out = PAIR
    if rule_in in points and rule_out in points and points[rule_in].threshold > points[rule_out].threshold:
        return (Pair(name, rule_in, rule_out),)
    return ()


def choose(wish: Wish, drawn: Sample, confidence: float) -> Threshold:
    """Returns the threshold of a wish, on one image of each patient."""
    rows = (drawn.truth, drawn.score)
    if wish.method == "youden":
        return youden(*rows)
    if wish.method == "cost":
        return least_cost(*rows, miss=wish.cost, false_alarm=1.0, prevalence=wish.prevalence)
    if wish.method == "empirical":
        return empirical(*rows, wish.aim, wish.target)
    if wish.method == "conformal":
        return conformal(*rows, wish.aim, wish.target)
    return pac(*rows, wish.aim, wish.target, confidence=confidence)


def held_out_rates(test: Sample, thresholds: Floats) -> list[tuple[Rate, Rate]]:
    """Returns (sensitivity, specificity) of calling everyone at or above each threshold.

    Raises:
        InvalidInput: The held-out images are all with, or all without, the finding.
    """
    found = rates_among(test, np.ones(test.n, dtype=np.bool_), thresholds)
    both = [(one, other) for one, other in found if one and other]
    if len(both) < len(found):
        raise InvalidInput("expected held-out images with and without the finding, got one kind only")
    return both


def rates_among(test: Sample, among: Bools, thresholds: Floats) -> list[tuple[Rate | None, Rate | None]]:
    """Returns (sensitivity, specificity) at each threshold of the chosen images; None where none is of that kind."""
    called, patients = _called(test, test.truth & among, thresholds)
    alarmed, others = _called(test, ~test.truth & among, thresholds)
    return [
        (Rate(one, patients) if patients else None, Rate(other, others) if others else None)
        for one, other in zip(called.tolist(), np.round(1.0 - alarmed, DIGITS).tolist(), strict=True)
    ]


def _called(data: Sample, among: Bools, thresholds: Floats) -> tuple[Floats, int]:
    """The mean over patients of the share of their images at or above each threshold, and how many patients."""
    scores, patient = data.score[among], data.patient[among]
    images = np.bincount(patient, minlength=data.patients)
    patients = int(np.count_nonzero(images))
    if not patients:
        return np.zeros(thresholds.size), 0
    order = np.argsort(scores, kind="stable")
    below = np.concatenate([[0.0], np.cumsum(1.0 / images[patient[order]])])
    found: Floats = np.round(1.0 - below[np.searchsorted(scores[order], thresholds)] / patients, DIGITS)
    return found, patients


def curve_points(calibration: Sample, test: Sample, *, seed: int) -> tuple[CurvePoint, ...]:
    """Returns every threshold of one score for each calibration patient, strictest first; the first calls nobody."""
    drawn = one_image_each(calibration, seed)
    positives, negatives = drawn.score[drawn.truth], drawn.score[~drawn.truth]
    values = np.unique(drawn.score)[::-1]
    thresholds = np.concatenate([[np.nextafter(values[0], np.inf)], values])
    called = [_at_least(scores, thresholds) for scores in (positives, negatives)]
    rates = held_out_rates(test, thresholds)
    return tuple(
        CurvePoint(threshold, *counts, *both)
        for threshold, *counts, both in zip(thresholds.tolist(), *called, rates, strict=True)
    )


def _at_least(scores: Floats, thresholds: Floats) -> list[int]:
    """How many scores are at or above each threshold."""
    counts: list[int] = (scores.size - np.searchsorted(np.sort(scores), thresholds)).tolist()
    return counts
