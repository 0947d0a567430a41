"""The ROC at every threshold, with what is needed to choose a point when a clinician asks.

The choice is made on the calibration patients, its performance is told on the held-out ones: no threshold is judged on
the data that chose it.
"""

from __future__ import annotations

import functools
import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from nearcase.decide.point import check_called, check_threshold
from nearcase.decide.rate import Rate
from nearcase.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """One threshold. The counts are of independent draws in the calibration split: one score for each patient."""

    threshold: float
    positives_called: int
    negatives_called: int
    sensitivity: Rate  # held-out
    specificity: Rate  # held-out
    called_sensitivity: Rate | None = None  # as of a fitted point
    called_specificity: Rate | None = None

    def __post_init__(self) -> None:
        check_threshold(self.threshold)
        if min(self.positives_called, self.negatives_called) < 0:
            message = (
                f"expected positives_called and negatives_called from 0, got {self.positives_called} and "
                f"{self.negatives_called}"
            )
            raise InvalidInput(message, field="positives_called")
        check_called(self.called_sensitivity, self.sensitivity)
        check_called(self.called_specificity, self.specificity)


def chosen_rates(curve: Sequence[CurvePoint], threshold: float) -> tuple[float, float]:
    """Returns the sensitivity and specificity of all calibration patients at any threshold, one score for each.

    Args:
        curve: Whole and not empty, so that its thresholds are all the scores there are.
        threshold: From which on is positive.
    """
    place = curve[max(0, bisect_right(curve, -threshold, key=lambda each: -each.threshold) - 1)]
    positives, negatives = curve[-1].positives_called, curve[-1].negatives_called
    return place.positives_called / max(positives, 1), 1.0 - place.negatives_called / max(negatives, 1)


def check_curve(curve: Sequence[CurvePoint]) -> None:
    """Refuses a curve that is not strictest first, whose first point calls anybody, or whose rates go the wrong way.

    Raises:
        InvalidInput: Where that is so.
    """
    for one, other in pairwise(curve):
        if not (
            one.threshold > other.threshold
            and one.positives_called <= other.positives_called
            and one.negatives_called <= other.negatives_called
        ):
            raise InvalidInput("expected a curve from the strictest threshold to the laxest", field="curve")
    if curve and (curve[0].positives_called, curve[0].negatives_called) != (0, 0):
        raise InvalidInput("expected a curve whose first point calls nobody, got another", field="curve")
    check_rates([(each.threshold, each.sensitivity, each.specificity) for each in curve])


def check_rates(places: Sequence[tuple[float, Rate, Rate]]) -> None:
    """Refuses rates of which no set of scores has all: a lower threshold never calls fewer.

    Args:
        places: Threshold, sensitivity and specificity, in any order; equal thresholds have equal rates.

    Raises:
        InvalidInput: A sensitivity falls, or a specificity rises, with a falling threshold; or two count others.
    """
    ordered = sorted(places, key=lambda place: (-place[0], place[1].value, -place[2].value))
    for (above, one_in, one_out), (below, other_in, other_out) in pairwise(ordered):
        if one_in.value > other_in.value or one_out.value < other_out.value:
            message = f"expected sensitivity to grow and specificity to fall from threshold {above:g} to {below:g}"
            raise InvalidInput(f"{message}, got the reverse", field="sensitivity")
        if above == below and (one_in, one_out) != (other_in, other_out):
            message = f"expected one sensitivity and one specificity at the threshold {above:g}, got two"
            raise InvalidInput(message, field="sensitivity")
        if (one_in.effective_n, one_out.effective_n) != (other_in.effective_n, other_out.effective_n):
            raise InvalidInput("expected effective_n of the same patients at every threshold", field="effective_n")


@functools.lru_cache(1024)
def most_misses(patients: int, target: float, confidence: float) -> int | None:
    """Returns how many of the calibration patients may be missed so that the target is kept with this confidence.

    The largest j with P(Binomial(n, 1 - target) <= j) <= 1 - confidence (order statistics; the same as Learn-then-Test
    with one monotone risk). None where even no miss at all promises too little.
    """
    log_alpha, log_target, allowed = math.log1p(-target), math.log(target), 1.0 - confidence
    cumulative, found = 0.0, None
    for misses in range(patients + 1):
        cumulative += math.exp(_log_choose(patients, misses) + misses * log_alpha + (patients - misses) * log_target)
        if cumulative > allowed:
            break
        found = misses
    return found


def patients_needed(target: float, confidence: float) -> int:
    """Returns the fewest patients with which the target can be promised at all: ln(1 - confidence) / ln(target)."""
    return math.ceil(math.log(1.0 - confidence) / math.log(target) - 1e-9)


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
