"""Score -> probability by a fitted map that never falls: isotonic or Platt's logistic."""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from itertools import pairwise

from nearcase.decide.rate import check_prevalence
from nearcase.errors import InvalidInput

KINDS = ("isotonic", "platt")


@dataclass(frozen=True, slots=True)
class Calibration:
    """A fitted map from scores to probabilities, at the prevalence of the data that it was fitted on.

    Isotonic: straight lines between knots, flat outside them. Platt (1999): expit(slope logit(score) + intercept).
    Scores are first clipped to clip .. 1 - clip: vote shares hit 0 and 1, where the logit is infinite, and k plain
    votes can not say more than 1/(2k). Weighted shares can: they are clipped only where digits end.
    """

    kind: str  # one of KINDS
    prevalence: float  # of the data that it was fitted on
    clip: float
    scores: tuple[float, ...] = ()  # of the knots, ascending
    probabilities: tuple[float, ...] = ()  # of the knots, never falling
    slope: float = 1.0
    intercept: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InvalidInput(f"expected a calibration {' or '.join(KINDS)}, got another", field="kind")
        check_prevalence(self.prevalence)
        if not 1e-12 <= self.clip < 0.5:
            raise InvalidInput(f"expected a clip inside 0..0.5, got {self.clip:g}", field="clip")
        if self.slope < 0.0:
            raise InvalidInput(f"expected a slope of 0 or more, got {self.slope:g}", field="slope")
        if self.kind == "isotonic":
            self._check_knots()

    def _check_knots(self) -> None:
        x, y = self.scores, self.probabilities
        rising = all(a < b for a, b in pairwise(x))
        never_falling = all(a <= b for a, b in pairwise(y))
        if not x or len(x) != len(y) or not rising or not never_falling or y[0] < 0.0 or y[-1] > 1.0:
            raise InvalidInput("expected knots with rising scores and probabilities in 0..1 that never fall")

    def probability(self, score: float, prevalence: float | None = None) -> float:
        """Returns the probability of a score, 0 to 1; at another prevalence, with the odds moved by Bayes' rule.

        Moving assumes that positives, and negatives, look the same there as in the fitted data (Saerens, Latinne and
        Decaestecker 2002, Neural Computation 14:21), as PPV and NPV at a prevalence do.
        """
        clipped = min(max(score, self.clip), 1.0 - self.clip)
        found = self._isotonic(clipped) if self.kind == "isotonic" else self._platt(clipped)
        if prevalence is None:
            return found
        ratio = prevalence / (1.0 - prevalence) * (1.0 - self.prevalence) / self.prevalence
        return found * ratio / (found * ratio + (1.0 - found))

    def _isotonic(self, score: float) -> float:
        x, y = self.scores, self.probabilities
        at = bisect_right(x, score)
        if at == 0 or at == len(x):
            return y[0] if at == 0 else y[-1]
        between = y[at - 1] + (score - x[at - 1]) * (y[at] - y[at - 1]) / (x[at] - x[at - 1])
        return min(between, y[at])  # rounding may not go above the next knot

    def _platt(self, score: float) -> float:
        z = self.slope * math.log(score / (1.0 - score)) + self.intercept
        return 1.0 / (1.0 + math.exp(-z)) if z >= 0.0 else math.exp(z) / (1.0 + math.exp(z))


def clip_of_votes(k: int) -> float:
    """Returns how near to 0 and 1 the share of k plain votes may come: 1/(2k)."""
    return 0.5 / max(k, 2)  # one vote says only yes or no; clipped to a half it would say nothing
