"""A held-out rate with its interval, and what sensitivity and specificity mean at a prevalence."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

from nearcase.errors import InvalidInput
from nearcase.types import Interval

LEVEL = 0.95

RAREST = 1e-9
"""Nearer to 0 and 1 than this no prevalence is known, and odds run out of digits."""


@dataclass(frozen=True, slots=True)
class Rate:
    """A share of held-out images and the number of independent ones that it is worth."""

    value: float
    effective_n: float  # images over the design effect of several images of one patient (Rao and Scott 1992)

    def __post_init__(self) -> None:
        if not 0.0 <= self.value <= 1.0 or not self.effective_n > 0.0:
            message = f"expected a rate inside 0..1 of more than 0 images, got {self.value:g} of {self.effective_n:g}"
            raise InvalidInput(message, field="value")

    @property
    def interval(self) -> Interval:
        """Wilson's score interval (1927)."""
        n, p, z2 = self.effective_n, self.value, _z(LEVEL) ** 2
        center = (p + z2 / (2.0 * n)) / (1.0 + z2 / n)
        half = math.sqrt(z2 * (p * (1.0 - p) / n + z2 / (4.0 * n * n))) / (1.0 + z2 / n)
        low = 0.0 if p == 0.0 else max(0.0, center - half)
        return Interval(p, low, 1.0 if p == 1.0 else min(1.0, center + half), LEVEL)


def check_prevalence(prevalence: float) -> float:
    """Returns the prevalence.

    Raises:
        InvalidInput: It is not inside 0..1, or nearer to an end than RAREST.
    """
    if not RAREST <= prevalence <= 1.0 - RAREST:
        raise InvalidInput(f"expected a prevalence inside 0..1, got {prevalence:g}", field="prevalence")
    return prevalence


def ppv(sensitivity: Rate, specificity: Rate, prevalence: float) -> Interval | None:
    """Returns the positive predictive value at a prevalence; None where nothing was called.

    se q / (se q + (1-sp)(1-q)), with an interval that is symmetric on the logit scale, where its variance is
    (1-se)/(se m) + sp/((1-sp) n); a rate of 0 or 1 takes half an image in each cell for the interval
    (Mercaldo, Lau and Zhou 2007, Statistics in Medicine 26:2170).

    Raises:
        InvalidInput: The prevalence is not inside 0..1.
    """
    return _share(sensitivity, specificity, check_prevalence(prevalence))


def npv(sensitivity: Rate, specificity: Rate, prevalence: float) -> Interval | None:
    """Returns the negative predictive value at a prevalence; None where everything was called.

    It is the PPV of the absence of the finding: sensitivity and specificity change places, as do q and 1 - q.

    Raises:
        InvalidInput: The prevalence is not inside 0..1.
    """
    return _share(specificity, sensitivity, 1.0 - check_prevalence(prevalence))


def _share(right: Rate, other: Rate, prevalence: float) -> Interval | None:
    odds = prevalence / (1.0 - prevalence)
    true, false = right.value * odds, 1.0 - other.value
    if true + false == 0.0:
        return None
    hit, miss, keep, alarm = _cells(right, other)
    m, n = hit + miss, keep + alarm
    center = math.log((hit / m) / (alarm / n) * odds)
    half = _z(LEVEL) * math.sqrt(miss / (hit * m) + keep / (alarm * n))
    value = true / (true + false)
    return Interval(value, min(value, _expit(center - half)), max(value, _expit(center + half)), LEVEL)


def _cells(right: Rate, other: Rate) -> tuple[float, float, float, float]:
    """Effective counts: called and not of those to call, not called and called of the others."""
    add = 0.5 if {right.value, other.value} & {0.0, 1.0} else 0.0
    m, n = right.effective_n, other.effective_n
    hit, keep = right.value * m, other.value * n
    return hit + add, m - hit + add, keep + add, n - keep + add


def _expit(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-x)) if x >= 0.0 else math.exp(x) / (1.0 + math.exp(x))


def _z(level: float) -> float:
    return NormalDist().inv_cdf(0.5 + level / 2.0)
