"""Proportions with intervals, over independent rows or over patients."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from nearcase_eval.distributions import beta_quantile
from nearcase_eval.estimate import Estimate, State, from_se, not_estimable, z_of
from nearcase_eval.sample import (
    FEW_PATIENTS,
    Bools,
    Floats,
    Ints,
    outcomes,
    patient_codes,
)


@dataclass(frozen=True, slots=True)
class Tally:
    """k of n rows, and how sure that is over patients.

    The variance is that of the ratio of two sums over clusters, I/(I-1) sum (x_p - r n_p)^2 / N^2 (Rao and Scott 1992,
    Biometrics 48:577).
    """

    k: int
    n: int
    patients: int
    worth: float  # patients of equal weight that the rows are worth (Kish)
    variance: float  # over patients; NaN with fewer than two

    @property
    def value(self) -> float:
        """k / n."""
        return self.k / self.n

    @property
    def effective_n(self) -> float:
        """n divided by the design effect, which is never below 1.

        Where the design effect can not be seen (all rows alike, or a few patients with most of the rows) each patient
        counts once.
        """
        naive = self.value * (1.0 - self.value) / self.n
        if self.patients == self.n:
            return float(self.n)
        if naive == 0.0 or self.few_decide:
            return self.worth
        return self.n / max(1.0, self.variance / naive)

    @property
    def few_decide(self) -> bool:
        """True when patients have several rows and are worth fewer than ten."""
        return self.patients < self.n and self.worth < FEW_PATIENTS

    @property
    def floored_variance(self) -> float:
        """Variance that is never 0: that of (k + 2)/(n + 4) on the effective n, where it is larger.

        Agresti and Coull 1998. A small group that shows 0 of n must not look certain in a gap.
        """
        n = self.effective_n
        adjusted = (self.value * n + 2.0) / (n + 4.0)
        extreme = self.k in (0, self.n) or self.few_decide or not math.isfinite(self.variance)
        return adjusted * (1.0 - adjusted) / (n + 4.0) if extreme else self.variance


@dataclass(frozen=True, slots=True)
class Rate(Tally):
    """A tally with each patient's part in its error; rates of one sample can be subtracted."""

    part: Floats  # (P,) sqrt(I/(I-1)) (x_p - r n_p) / N; the variance is the sum of its squares


def rate_of(hits: Bools, patient: Ints, patients: int) -> Rate | None:
    """Returns the rate of hits among rows whose patients are codes; None without rows."""
    rows = np.bincount(patient, minlength=patients)
    return rate_of_counts(np.bincount(patient[hits], minlength=patients), rows)


def rate_of_counts(hits: Ints, rows: Ints) -> Rate | None:
    """Returns the rate from each patient's hits and rows, both (P,); None without rows."""
    k, n, seen = int(hits.sum()), int(rows.sum()), int(np.count_nonzero(rows))
    if n == 0:
        return None
    counts = rows.astype(np.float64)
    factor = math.sqrt(seen / (seen - 1.0)) if seen > 1 else math.nan
    part = (hits - (k / n) * counts) * (factor / n)
    return Rate(k, n, seen, float(n) ** 2 / float(counts @ counts), float(part @ part), part)


def proportion(
    hits: ArrayLike, *, patient: ArrayLike | None = None, level: float = 0.95, method: str = "wilson"
) -> Estimate:
    """Returns the share of hits with an interval.

    Args:
        hits: 0 or 1 of each row.
        patient: Rows of one patient are not independent: Wilson and Clopper-Pearson then take the effective n.
        level: Of the interval.
        method: "wilson", "clopper-pearson" (never too narrow) or "ratio" (normal, by the ratio estimator).

    Raises:
        InvalidInput: The arrays do not fit.
        ValueError: The method is none of these.
    """
    found = outcomes(hits)
    codes, patients = patient_codes(patient, found.size)
    return proportion_of(rate_of(found, codes, patients), level=level, method=method)


def proportion_of(rate: Tally | None, *, level: float = 0.95, method: str = "wilson") -> Estimate:
    """Returns the estimate of a rate; None, a rate of no rows, is not estimable."""
    if rate is None:
        return not_estimable("there are no rows to count", n=0, patients=0, method=method, level=level)
    if method == "ratio":
        se = math.sqrt(rate.variance) if rate.patients > 1 else math.nan
        found = from_se(rate.value, se, n=rate.n, patients=rate.patients, method="ratio", level=level)
        return dataclasses.replace(found, k=rate.k)
    bounds = {"wilson": wilson, "clopper-pearson": clopper_pearson}
    if method not in bounds:
        raise ValueError(f"expected wilson, clopper-pearson or ratio, got {method}")
    n = rate.effective_n
    low, high = bounds[method](rate.value * n, n, level=level)
    name = method if rate.patients == rate.n else f"{method} on effective n {n:.1f}"
    state = State.LOW_PRECISION if rate.few_decide else State.OK
    reason = f"patients are worth fewer than {FEW_PATIENTS}, each counts once" if rate.few_decide else ""
    return Estimate(rate.value, low, high, rate.n, rate.patients, name, level, state, reason, k=rate.k)


def wilson(k: float, n: float, *, level: float = 0.95) -> tuple[float, float]:
    """Returns Wilson's score interval of k in n (1927); n may be an effective number."""
    z2, p = z_of(level) ** 2, k / n
    center = (p + z2 / (2.0 * n)) / (1.0 + z2 / n)
    half = math.sqrt(z2 * (p * (1.0 - p) / n + z2 / (4.0 * n * n))) / (1.0 + z2 / n)
    return (0.0 if k <= 0.0 else center - half), (1.0 if k >= n else center + half)


def clopper_pearson(k: float, n: float, *, level: float = 0.95) -> tuple[float, float]:
    """Returns the exact interval of k in n (1934), for guarantees; n may be an effective number."""
    tail = (1.0 - level) / 2.0
    low = 0.0 if k <= 0.0 else beta_quantile(tail, k, n - k + 1.0)
    high = 1.0 if k >= n else beta_quantile(1.0 - tail, k + 1.0, n - k)
    return low, high
