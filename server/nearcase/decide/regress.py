"""Numbers, such as bone age, from shares over values that are numbers."""

from __future__ import annotations

import math
from collections import defaultdict

from nearcase.decide.finding import number_of
from nearcase.decide.fitted import Residuals
from nearcase.decide.neighbours import Shares
from nearcase.types import Measurement

TOP = 3
"""Values that the mean is taken over, as in the published routine (REGRESS_K)."""

SPREAD = 0.9
"""Part of the weight that the spread of the evidence covers."""


def regress(shares: Shares, residuals: Residuals | None, unit: str) -> Measurement | None:
    """Returns the most likely value, and the mean of the top three weighted by their shares, with an interval.

    The interval lies around the mean and has its level in new patients where residuals were fitted (split conformal);
    else it is only where the middle 90 % of the evidence's weight lies. None where no value is a number.
    """
    ranked = _by_number(shares)
    if not ranked:
        return None
    top = ranked[:TOP]
    mean = math.fsum(number * share for number, share in top) / math.fsum(share for _, share in top)
    if residuals is not None:
        low, high, level, method = mean - residuals.bound, mean + residuals.bound, residuals.level, "conformal"
    else:
        low, high = _middle(ranked)
        low, high, level, method = min(low, mean), max(high, mean), SPREAD, "evidence"
    return Measurement(ranked[0][0], mean, low, high, level, method, unit)


def _by_number(shares: Shares) -> list[tuple[float, float]]:
    """Values that are the same number, as "12" and "12.0", are one; largest share first, equal ones by number."""
    found: dict[float, list[float]] = defaultdict(list)
    for value, share in shares:
        number = number_of(value)
        if number is not None:
            found[number].append(share)
    return sorted(((number, math.fsum(each)) for number, each in found.items()), key=lambda item: (-item[1], item[0]))


def _middle(ranked: list[tuple[float, float]]) -> tuple[float, float]:
    """The weighted quantiles that leave an equal part of the weight outside on either side."""
    tail = (1.0 - SPREAD) / 2.0 * math.fsum(share for _, share in ranked)
    upward = sorted(ranked)
    return _reached(upward, tail), _reached(upward[::-1], tail)


def _reached(items: list[tuple[float, float]], weight: float) -> float:
    total = 0.0
    for number, share in items:
        total += share
        if total > weight:
            return number
    return items[-1][0]
