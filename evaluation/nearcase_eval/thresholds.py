"""Choosing a threshold on calibration data; a row is called when its score >= threshold.

Promises (conformal, PAC) hold for new patients that are drawn like the calibration patients, so they count patients:
rows of one patient are not independent draws. They survive a change of prevalence, but not a change of what positives
(for sensitivity) or negatives (for specificity) look like.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import Enum
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from nearcase.errors import InvalidInput
from nearcase_eval.distributions import binomial_cdf
from nearcase_eval.estimate import State
from nearcase_eval.ranking import curve_of
from nearcase_eval.sample import Bools, Floats, Sample, sample_of

Aim = Literal["sensitivity", "specificity"]


class Unit(Enum):
    """What a promise is about."""

    IMAGE = "image"  # one row of a patient, drawn by the seed
    PATIENT = "patient"  # the patient's highest score: called when any row is called


@dataclass(frozen=True, slots=True)
class Threshold:
    """A chosen threshold and what was promised of it; value is None when it was refused, with the reason."""

    value: float | None
    method: str  # empirical, conformal, pac, youden, cost or fixed
    aim: str = ""  # sensitivity, specificity or empty
    target: float | None = None
    confidence: float | None = None  # of a PAC promise
    unit: str = ""
    patients: int = 0  # that the promise counts
    patients_needed: int = 0  # the fewest that could give this promise
    guarantee: str = "none"  # one sentence
    state: State = State.OK
    reason: str = ""


def fixed(value: float) -> Threshold:
    """Returns a threshold that was given beforehand."""
    return Threshold(value, "fixed", guarantee="none: the threshold was given")


def empirical(
    y_true: ArrayLike, y_score: ArrayLike, aim: Aim, target: float, *, patient: ArrayLike | None = None
) -> Threshold:
    """Returns the threshold that reaches the target on these very rows; ties can overshoot it.

    The largest with sensitivity >= target, or the smallest observed score with specificity >= target.

    Raises:
        InvalidInput: The target is not inside 0..1, or the arrays do not fit.
    """
    data = _sample(y_true, y_score, patient, target)
    scores = data.score[data.truth] if aim == "sensitivity" else data.score[~data.truth]
    allowed = math.floor((1.0 - target) * scores.size + 1e-9)
    return _by_rank(data, scores, allowed + 1, "empirical", aim, target, needed=1, guarantee="none: in these rows only")


def conformal(
    y_true: ArrayLike,
    y_score: ArrayLike,
    aim: Aim,
    target: float,
    *,
    patient: ArrayLike | None = None,
    unit: Unit = Unit.IMAGE,
    seed: int = 0,
) -> Threshold:
    """Returns the threshold that keeps the target on average over calibration sets (class-conditional split conformal).

    The k-th smallest positive score, k = floor((1 - target)(m + 1)); for specificity the mirror image in the negatives.

    Raises:
        InvalidInput: The target is not inside 0..1, or the arrays do not fit.
    """
    data = _sample(y_true, y_score, patient, target)
    scores = independent_scores(data, aim, unit, seed)
    rank = math.floor((1.0 - target) * (scores.size + 1) + 1e-9)
    needed = math.ceil(1.0 / (1.0 - target) - 1e-9) - 1
    promise = f"{aim} of at least {target!r} for the next {unit.value}, on average over calibration sets"
    return _by_rank(data, scores, rank, "conformal", aim, target, needed, promise, unit=unit)


def pac(
    y_true: ArrayLike,
    y_score: ArrayLike,
    aim: Aim,
    target: float,
    *,
    confidence: float = 0.95,
    patient: ArrayLike | None = None,
    unit: Unit = Unit.IMAGE,
    seed: int = 0,
) -> Threshold:
    """Returns the threshold that keeps the target with this confidence over calibration sets (order statistics).

    The k-th smallest positive score with the largest k for which P(Binomial(m, 1 - target) <= k - 1) <= 1 - confidence;
    0.90 at 95 % needs 29 positive patients. For specificity the mirror image in the negatives.

    Raises:
        InvalidInput: Target or confidence are not inside 0..1, or the arrays do not fit.
    """
    data = _sample(y_true, y_score, patient, target)
    if not 0.0 < confidence < 1.0:
        raise InvalidInput(f"expected a confidence inside 0..1, got {confidence}", field="confidence")
    scores = independent_scores(data, aim, unit, seed)
    rank = _pac_rank(int(scores.size), 1.0 - target, 1.0 - confidence)
    needed = math.ceil(math.log(1.0 - confidence) / math.log(target) - 1e-9)
    promise = f"{aim} of at least {target!r} per {unit.value}, with confidence {confidence!r}"
    return _by_rank(data, scores, rank, "pac", aim, target, needed, promise, unit=unit, confidence=confidence)


def youden(y_true: ArrayLike, y_score: ArrayLike) -> Threshold:
    """Returns the threshold of the largest sensitivity + specificity - 1, the strictest of equals.

    Raises:
        InvalidInput: The arrays do not fit.
    """
    return _best(sample_of(y_true, y_score), 0.5, 0.5, "youden")


def least_cost(
    y_true: ArrayLike, y_score: ArrayLike, *, miss: float, false_alarm: float, prevalence: float | None = None
) -> Threshold:
    """Returns the threshold of the least expected cost at a prevalence, that of the rows if none is stated.

    Raises:
        InvalidInput: A cost is not above 0, the prevalence is not inside 0..1, or the arrays do not fit.
    """
    data = sample_of(y_true, y_score)
    if min(miss, false_alarm) <= 0.0:
        raise InvalidInput(f"expected costs above 0, got {miss:g} and {false_alarm:g}", field="cost")
    if prevalence is not None and not 0.0 < prevalence < 1.0:
        raise InvalidInput(f"expected a prevalence inside 0..1, got {prevalence:g}", field="prevalence")
    share = prevalence if prevalence is not None else data.positives / max(data.n, 1)
    return _best(data, miss * share, false_alarm * (1.0 - share), "cost")


def independent_scores(data: Sample, aim: Aim, unit: Unit, seed: int) -> Floats:
    """Returns one score per patient, (I,): the only draws that may be counted as independent.

    Unit.IMAGE takes one row of the class at random; Unit.PATIENT the highest, and for specificity only patients who
    have no positive row at all.
    """
    mask = data.truth if aim == "sensitivity" else ~data.truth
    if unit is Unit.PATIENT and aim == "specificity":
        mask = ~np.isin(data.patient, data.patient[data.truth])
    rows = np.flatnonzero(mask)
    if unit is Unit.IMAGE:
        rows = np.random.default_rng(seed).permutation(rows)
    else:
        rows = rows[np.argsort(-data.score[rows], kind="stable")]
    _, first = np.unique(data.patient[rows], return_index=True)
    found: Floats = data.score[rows[first]]
    return found


def _sample(y_true: ArrayLike, y_score: ArrayLike, patient: ArrayLike | None, target: float) -> Sample:
    if not 0.0 < target < 1.0:
        raise InvalidInput(f"expected a target inside 0..1, got {target}", field="target")
    return sample_of(y_true, y_score, patient)


def _pac_rank(m: int, alpha: float, delta: float) -> int:
    low, high = 0, m  # the bound grows with the rank, so the largest that holds is found by halves
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if binomial_cdf(middle - 1, m, alpha) <= delta else (low, middle - 1)
    return low


def _by_rank(
    data: Sample,
    scores: Floats,
    rank: int,
    method: str,
    aim: Aim,
    target: float,
    needed: int,
    guarantee: str,
    *,
    unit: Unit | None = None,
    confidence: float | None = None,
) -> Threshold:
    count = int(scores.size)
    about = Threshold(None, method, aim, target, confidence, unit.value if unit else "", count, needed)
    if rank < 1 or count == 0:
        kind = "positives" if aim == "sensitivity" else "negatives"
        reason = f"needs at least {needed} patients with {kind}, got {count}"
        return replace(about, state=State.NOT_ESTIMABLE, reason=reason)
    ordered = np.sort(scores)
    value = ordered[rank - 1] if aim == "sensitivity" else _next_above(data.score, float(ordered[count - rank]))
    return replace(about, value=float(value), guarantee=guarantee)


def _next_above(scores: Floats, value: float) -> float:
    """The smallest observed score above a value; if there is none, the next number: nothing seen is called."""
    above: Bools = scores > value
    return float(scores[above].min()) if above.any() else float(np.nextafter(value, np.inf))


def _best(data: Sample, gain: float, loss: float, method: str) -> Threshold:
    """The strictest threshold of the largest gain x sensitivity - loss x false-positive rate."""
    if not 0 < data.positives < data.n:
        reason = "needs positives and negatives, one class is missing"
        return Threshold(None, method, patients_needed=2, state=State.NOT_ESTIMABLE, reason=reason)
    points = curve_of(data.truth, data.score)
    best = int(np.argmax(gain * points.sensitivity - loss * points.false_positive_rate))
    if best == 0:
        reason = "calling nothing is best: no threshold is worth its false alarms"
        return Threshold(None, method, state=State.NOT_ESTIMABLE, reason=reason)
    return Threshold(float(points.threshold[best]), method, guarantee="none: the best on these rows")
