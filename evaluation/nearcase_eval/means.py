"""Means and ratios of sums over patients: one variance for Brier scores, errors, net benefit and retrieval."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np

from nearcase_eval.estimate import Estimate, Shape, State, from_se, not_estimable
from nearcase_eval.sample import FEW_PATIENTS, Floats, Ints, effective_patients, present, sums


@dataclass(frozen=True, slots=True)
class Mean:
    """sum(top) / sum(bottom) with each patient's part in the error; means of one sample can be subtracted.

    The ratio estimator over clusters (Cochran 1977, section 6.3): its variance is the sum of squares of `part`.
    """

    value: float
    n: int
    patients: int
    worth: float  # patients of equal weight that the rows are worth (Kish)
    part: Floats  # (P,)

    @property
    def se(self) -> float:
        """Standard error over patients; NaN with fewer than two."""
        return math.sqrt(float(self.part @ self.part))

    def estimate(self, method: str, *, level: float = 0.95, shape: Shape = Shape.NORMAL) -> Estimate:
        """Returns the mean with its interval."""
        counts = {"n": self.n, "patients": self.patients}
        found = from_se(self.value, self.se, **counts, method=method, level=level, shape=shape)
        if self.patients == self.n or self.worth >= FEW_PATIENTS or found.state is not State.OK:
            return found
        reason = f"a few patients have most rows: they are worth fewer than {FEW_PATIENTS}"
        return dataclasses.replace(found, state=State.LOW_PRECISION, reason=reason)


def mean_of(values: Floats, patient: Ints, patients: int) -> Mean | None:
    """Returns the mean over rows whose patients are codes; None without rows."""
    return ratio_of(values, np.ones_like(values), patient, patients)


def ratio_of(top: Floats, bottom: Floats, patient: Ints, patients: int) -> Mean | None:
    """Returns sum(top) / sum(bottom); None when the bottom adds up to 0."""
    total = float(bottom.sum())
    if total == 0.0:
        return None
    value, seen = float(top.sum()) / total, present(patient, patients)
    factor = math.sqrt(seen / (seen - 1.0)) if seen > 1 else math.nan
    part = sums(patient, top - value * bottom, patients) * (factor / total)
    return Mean(value, int(top.size), seen, effective_patients(patient, patients), part)


def estimate_of(found: Mean | None, method: str, *, level: float = 0.95, shape: Shape = Shape.NORMAL) -> Estimate:
    """Returns the estimate of a mean; None, a mean of nothing, is not estimable."""
    if found is None:
        return not_estimable("there are no rows to average", n=0, patients=0, method=method, level=level)
    return found.estimate(method, level=level, shape=shape)
