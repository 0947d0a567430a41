"""Paired comparison of scores on the same rows: are two AUROCs different, are k of them?"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from nearcase.errors import InvalidInput
from nearcase_eval.auroc import estimate_of
from nearcase_eval.clustered import Area, area_of, covariance, difference
from nearcase_eval.distributions import chi_square_p, normal_p
from nearcase_eval.estimate import Estimate, State, from_se
from nearcase_eval.sample import Floats, sample_of


@dataclass(frozen=True, slots=True)
class Difference:
    """AUROC(first) - AUROC(second) on the same rows."""

    first: str
    second: str
    estimate: Estimate
    z: float | None
    p: float | None  # two-sided; None when it can not be had
    identical: bool  # the two rank every pair of rows alike

    def is_noninferior(self, margin: float) -> bool | None:
        """Returns whether the whole interval lies above -margin; None without an interval."""
        return None if self.estimate.low is None else self.estimate.low > -margin


@dataclass(frozen=True, slots=True)
class Comparison:
    """K scores on the same rows, in the order in which they came."""

    names: tuple[str, ...]
    areas: tuple[Estimate, ...]
    differences: tuple[Difference, ...]  # every pair
    chi_square: float | None  # all equal? None when a class is missing or nothing varies
    df: int
    p: float | None


def compare(
    y_true: ArrayLike, scores: Mapping[str, ArrayLike], *, patient: ArrayLike | None = None, level: float = 0.95
) -> Comparison:
    """Returns the paired tests of DeLong 1988, clustered by patient (Obuchowski 1997) when patients are given.

    Raises:
        InvalidInput: Fewer than two scores, a class is missing, or the arrays do not fit.
    """
    if len(scores) < 2:
        raise InvalidInput(f"expected at least two scores to compare, got {len(scores)}", field="scores")
    areas = {name: area_of(sample_of(y_true, score, patient)) for name, score in scores.items()}
    found = {name: area for name, area in areas.items() if area is not None}
    if len(found) < len(areas):
        raise InvalidInput("expected positives and negatives to compare AUROCs, one class is missing", field="y_true")
    pairs = itertools.combinations(found, 2)
    chi_square, df, p = all_equal(np.array([area.value for area in found.values()]), covariance([*found.values()]))
    return Comparison(
        tuple(found),
        tuple(estimate_of(area, level=level) for area in found.values()),
        tuple(difference_of(a, found[a], b, found[b], level=level) for a, b in pairs),
        chi_square,
        df,
        p,
    )


def difference_of(first: str, a: Area, second: str, b: Area, *, level: float = 0.95) -> Difference:
    """Returns the difference of two areas whose patients have the same codes."""
    value, variance = difference(a, b)
    n, patients = max(a.n, b.n), max(a.patients, b.patients)
    if variance > 0.0 and math.isfinite(variance):
        z = value / math.sqrt(variance)
        estimate = from_se(value, math.sqrt(variance), n=n, patients=patients, method="paired DeLong", level=level)
        return Difference(first, second, estimate, z, normal_p(z), identical=False)
    if value == 0.0 and variance == 0.0:
        same = Estimate(0.0, None, None, n, patients, "paired DeLong", level, State.OK, "", 0.0)
        return Difference(first, second, same, 0.0, 1.0, identical=True)
    reason = "the difference does not vary between patients, so it has no test"
    estimate = Estimate(value, None, None, n, patients, "paired DeLong", level, State.LOW_PRECISION, reason)
    return Difference(first, second, estimate, None, None, identical=False)


def all_equal(values: Floats, cov: Floats) -> tuple[float | None, int, float | None]:
    """Returns (chi-square, df, p) of "all K values are equal": L'(LSL')^-1 L with contrasts to the first.

    df is the rank of the contrasts' covariance: scores that rank alike do not count twice. With independent values
    this is Cochran's Q, sum (A_k - mean)^2 / v_k.
    """
    if len(values) < 2 or not np.all(np.isfinite(cov)):
        return None, 0, None
    contrasts = np.hstack([-np.ones((len(values) - 1, 1)), np.eye(len(values) - 1)])
    gaps, spread = contrasts @ values, contrasts @ cov @ contrasts.T
    size, axes = np.linalg.eigh(spread)
    kept = size > 1e-10 * max(float(np.trace(cov)), 1e-300)
    if not kept.any():
        return None, 0, None
    along = axes.T @ gaps
    chi_square, df = float(np.sum(along[kept] ** 2 / size[kept])), int(kept.sum())
    return chi_square, df, chi_square_p(chi_square, df)
