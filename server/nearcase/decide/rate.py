"""A held-out rate with its interval, how shares are told, and what a rate means at a prevalence."""

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
    """A share of held-out patients: each counts once, by the share of their images.

    It is the chance of an image of a new patient, which is what thresholds promise of. Wilson's interval of so many
    patients is never too narrow for it: a share of images varies less than one image does.
    """

    value: float
    effective_n: float  # patients, a whole number

    def __post_init__(self) -> None:
        if not 0.0 <= self.value <= 1.0:
            raise InvalidInput(f"expected a rate of value 0..1, got {self.value:g}", field="value")
        if not (self.effective_n >= 1.0 and float(self.effective_n).is_integer()):
            message = f"expected a rate of effective_n a whole number of patients, got {self.effective_n:g}"
            raise InvalidInput(message, field="effective_n")

    @property
    def interval(self) -> Interval:
        """Wilson's score interval (1927)."""
        n, p, z2 = self.effective_n, self.value, _z(LEVEL) ** 2
        center = (p + z2 / (2.0 * n)) / (1.0 + z2 / n)
        half = math.sqrt(z2 * (p * (1.0 - p) / n + z2 / (4.0 * n * n))) / (1.0 + z2 / n)
        low = 0.0 if p == 0.0 else max(0.0, center - half)
        return Interval(p, low, 1.0 if p == 1.0 else min(1.0, center + half), LEVEL)


def percent(share: float) -> str:
    """Returns a share in percent: in at least two digits that count, and enough to tell it from none and from all."""
    for digits in range(15):
        text = f"{share:.{digits}%}"
        if (float(text[:-1]) >= 10.0 ** (1 - digits) or share <= 0.0) and (float(text[:-1]) < 100.0 or share >= 1.0):
            return text
    return f"{share:.0%}"  # none, or all


def decimal(share: float) -> str:
    """Returns a share with digits enough to tell it from 0 and 1, at least three."""
    for digits in range(3, 17):
        text = f"{share:#.{digits}g}"  # 0.730 and 0.900, as they stand below each other in tables
        if float(text) not in (0.0, 1.0):
            return text
    return f"{share:g}"


def apart(value: float, limit: float) -> tuple[str, str]:
    """Returns two numbers in as few digits as show which is larger, at least three."""
    for digits in range(3, 17):
        texts = f"{value:.{digits}g}", f"{limit:.{digits}g}"
        if value == limit or texts[0] != texts[1]:
            return texts
    return repr(value), repr(limit)


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
