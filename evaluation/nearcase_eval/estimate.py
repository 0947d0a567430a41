"""What a statistic returns: always an Estimate, whose state says whether its number may be used."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from statistics import NormalDist


class State(Enum):
    """Whether a number may be used."""

    OK = "ok"
    LOW_PRECISION = "low precision"
    NOT_ESTIMABLE = "not estimable"
    SUPPRESSED = "suppressed"


class Shape(Enum):
    """The scale on which an interval is symmetric."""

    NORMAL = "normal"  # as pROC prints it
    LOGIT = "logit"  # stays inside 0..1
    LOG = "log"  # stays above 0


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its interval and the counts that it rests on.

    value is None exactly when state is NOT_ESTIMABLE or SUPPRESSED; low and high are also None when only the interval
    can not be had. A suppressed estimate has counts of 0.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int  # rows
    patients: int
    method: str
    level: float = 0.95
    state: State = State.OK
    reason: str = ""  # one sentence; empty when state is OK
    se: float | None = None
    k: int | None = None  # events, for a proportion


def z_of(level: float) -> float:
    """Returns the two-sided normal quantile: 1.96 for 0.95."""
    return NormalDist().inv_cdf(0.5 + level / 2.0)


def not_estimable(reason: str, *, n: int, patients: int, method: str, level: float = 0.95) -> Estimate:
    """Returns the estimate that has no number, only a reason."""
    return Estimate(None, None, None, n, patients, method, level, State.NOT_ESTIMABLE, reason)


def suppressed(estimate: Estimate) -> Estimate:
    """Returns the estimate without any number, for a report that leaves the house."""
    reason = "the group is hidden because small counts could point to persons"
    return Estimate(None, None, None, 0, 0, estimate.method, estimate.level, State.SUPPRESSED, reason)


def interval(value: float, se: float, level: float, shape: Shape = Shape.NORMAL) -> tuple[float, float]:
    """Returns (low, high), symmetric on the scale that shape names.

    Logit needs a value strictly inside 0..1 and log a value above 0; the delta method moves se to that scale.
    """
    half = z_of(level) * se
    if shape is Shape.LOGIT:
        center, spread = math.log(value / (1.0 - value)), half / (value * (1.0 - value))
        return _expit(center - spread), _expit(center + spread)
    if shape is Shape.LOG:
        return value * math.exp(-half / value), value * math.exp(half / value)
    return value - half, value + half


def from_se(
    value: float,
    se: float,
    *,
    n: int,
    patients: int,
    method: str,
    level: float = 0.95,
    shape: Shape = Shape.NORMAL,
) -> Estimate:
    """Returns an estimate from a standard error; without variation between two patients it has no interval."""
    if patients < 2 or not math.isfinite(se) or se <= 0.0:
        reason = "no interval: patients do not vary" if patients > 1 else "no interval: fewer than two patients"
        return Estimate(value, None, None, n, patients, method, level, State.LOW_PRECISION, reason)
    low, high = interval(value, se, level, shape)
    return Estimate(value, low, high, n, patients, method, level, se=se)


def _expit(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-x)) if x >= 0.0 else math.exp(x) / (1.0 + math.exp(x))
