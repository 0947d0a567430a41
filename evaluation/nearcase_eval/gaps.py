"""Gaps between groups: how large, how sure, how likely by chance, and whether within a stated tolerance.

The largest gap is chosen after looking, so its interval holds for all pairs at once: each pair's difference gets an
interval at the level that Bonferroni's inequality asks for, and the true largest gap lies between the largest lower
and the largest upper limit. Standard errors are over patients, and patients who are in two groups are not counted as
independent.

The verdict follows two one-sided tests (Schuirmann 1987): pass when the whole interval is within the tolerance, fail
when all of it is beyond, else inconclusive.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np

from nearcase_eval.distributions import normal_p, power_z
from nearcase_eval.estimate import Estimate, from_se, not_estimable, z_of
from nearcase_eval.permutation import Chance
from nearcase_eval.sample import Floats

POWER = 0.80
"""Of the minimum detectable gap."""


class Verdict(Enum):
    """What may be said of a gap."""

    PASS = "pass"  # noqa: S105  # no password
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"
    NOT_JUDGED = "not judged"  # no tolerance was stated


@dataclass(frozen=True, slots=True)
class Excluded:
    """A group that is in no gap, and why."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Gap:
    """A difference between two groups, or between a group and all others together."""

    metric: str
    first: str
    second: str  # "the rest" when first is set against all others
    estimate: Estimate  # first - second; of the largest gap never below 0
    p: float | None  # of no difference: by permutation for the largest gap, by z for a gap to the rest
    expected_by_chance: float | None
    minimum_detectable: float | None  # true gap that this many patients would show with a power of 0.80
    tolerance: float | None
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Measured:
    """A metric in K estimable groups of one attribute."""

    metric: str
    attribute: str
    names: tuple[str, ...]
    values: Floats  # (K,)
    covariance: Floats  # (K, K) over patients, no variance of 0
    to_rest: tuple[tuple[float, float], ...]  # (difference to the rest, its standard error); NaN without a rest
    higher_is_worse: bool
    n: int
    patients: int
    excluded: tuple[Excluded, ...]


@dataclass(frozen=True, slots=True)
class Gaps:
    """All gaps of one metric and attribute."""

    metric: str
    attribute: str
    worst: str | None  # group with the worst value
    largest: Gap
    to_rest: tuple[Gap, ...]
    homogeneity: float | None  # chi-square of "all groups equal"
    df: int
    homogeneity_p: float | None
    excluded: tuple[Excluded, ...]


def judge(low: float | None, high: float | None, tolerance: float | None) -> Verdict:
    """Returns the verdict on an interval of the difference; without an interval nothing is concluded.

    An interval that reaches both sides of 0 is within the tolerance only when both ends are.
    """
    if tolerance is None:
        return Verdict.NOT_JUDGED
    if low is None or high is None:
        return Verdict.INCONCLUSIVE
    if -tolerance <= low and high <= tolerance:
        return Verdict.PASS
    return Verdict.FAIL if low > tolerance or high < -tolerance else Verdict.INCONCLUSIVE


def largest_gap(
    measured: Sequence[Measured], *, level: float, tolerance: float | None, chance: Chance | None = None, name: str = ""
) -> Gap:
    """Returns the largest gap over all pairs of groups and, for several metrics, over these too (equalised odds)."""
    pairs = [(found, i, j) for found in measured for i, j in itertools.combinations(range(len(found.names)), 2)]
    title = name or " or ".join(found.metric for found in measured)
    if not pairs:
        return _no_gap(measured, title, level, tolerance)
    z = z_of(1.0 - (1.0 - level) / len(pairs))
    limits = [(abs(float(each.values[i] - each.values[j])), _se_of_pair(each, i, j)) for each, i, j in pairs]
    best = max(range(len(pairs)), key=lambda index: limits[index][0])
    low = max(0.0, max(gap - z * se for gap, se in limits))
    high = min(1.0, max(gap + z * se for gap, se in limits))
    found, i, j = pairs[best]
    higher, lower = (i, j) if found.values[i] >= found.values[j] else (j, i)
    method = f"largest of {len(pairs)} differences, simultaneous interval over patients"
    estimate = Estimate(limits[best][0], low, high, found.n, found.patients, method, level, se=limits[best][1])
    return Gap(
        title,
        found.names[higher],
        found.names[lower],
        estimate,
        chance.p if chance else None,
        chance.expected if chance else None,
        (z + power_z(POWER)) * max(se for _, se in limits),
        tolerance,
        judge(low, high, tolerance),
    )


def gaps_to_rest(found: Measured, *, level: float, tolerance: float | None) -> tuple[Gap, ...]:
    """Returns each group's difference to all other rows of the attribute together."""
    return tuple(
        _to_rest(found, name, value, se, level, tolerance)
        for name, (value, se) in zip(found.names, found.to_rest, strict=True)
    )


def worst_of(found: Measured) -> str | None:
    """Returns the group with the worst value; None without groups."""
    if not found.names:
        return None
    return found.names[int(np.argmax(found.values) if found.higher_is_worse else np.argmin(found.values))]


def _to_rest(found: Measured, name: str, value: float, se: float, level: float, tolerance: float | None) -> Gap:
    method = "difference to the rest, over patients"
    if not math.isfinite(value) or se <= 0.0:
        reason = "the rest can not be estimated, or nothing varies"
        missing = not_estimable(reason, n=found.n, patients=found.patients, method=method, level=level)
        return Gap(found.metric, name, "the rest", missing, None, None, None, tolerance, judge(None, None, tolerance))
    estimate = from_se(value, se, n=found.n, patients=found.patients, method=method, level=level)
    verdict = judge(estimate.low, estimate.high, tolerance)
    detectable = (z_of(level) + power_z(POWER)) * se
    return Gap(found.metric, name, "the rest", estimate, normal_p(value / se), None, detectable, tolerance, verdict)


def _se_of_pair(found: Measured, i: int, j: int) -> float:
    cov = found.covariance
    return math.sqrt(max(float(cov[i, i] + cov[j, j] - 2.0 * cov[i, j]), 0.0))


def _no_gap(measured: Sequence[Measured], title: str, level: float, tolerance: float | None) -> Gap:
    reason = "fewer than two groups can be estimated"
    n, patients = (measured[0].n, measured[0].patients) if measured else (0, 0)
    missing = not_estimable(reason, n=n, patients=patients, method="largest gap", level=level)
    return Gap(title, "", "", missing, None, None, None, tolerance, judge(None, None, tolerance))
