"""The ROC at every threshold, with what is needed to choose a point when a clinician asks.

The choice is made on the calibration patients, its performance is told on the held-out ones: no threshold is judged on
the data that chose it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

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


def check_curve(curve: Sequence[CurvePoint]) -> None:
    """Refuses a curve that is not strictest first, or whose last point does not call every patient.

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
