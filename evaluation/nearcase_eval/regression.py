"""Errors of a predicted quantity, for example bone age in months, with intervals over patients."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from nearcase_eval.estimate import Estimate, Shape, from_se, not_estimable
from nearcase_eval.means import Mean, estimate_of, mean_of, ratio_of
from nearcase_eval.sample import Floats, Ints, numbers, patient_codes, same_length


@dataclass(frozen=True, slots=True)
class Errors:
    """How far predictions are off, in the unit of the quantity; r2 has none."""

    mean_absolute: Estimate
    root_mean_square: Estimate
    bias: Estimate  # mean of predicted - true
    r2: Estimate  # share of the variance explained; below 0 when worse than the mean


def errors(
    y_true: ArrayLike, y_predicted: ArrayLike, *, patient: ArrayLike | None = None, level: float = 0.95
) -> Errors:
    """Returns the errors of predictions.

    Raises:
        InvalidInput: The arrays do not fit, or a value is missing.
    """
    truth, predicted = numbers(y_true, "y_true"), numbers(y_predicted, "y_predicted")
    same_length(truth.size, predicted.size, "y_predicted")
    codes, patients = patient_codes(patient, truth.size)
    residual = predicted - truth
    return Errors(
        estimate_of(mean_of(np.abs(residual), codes, patients), "mean absolute error", level=level),
        _root(mean_of(residual**2, codes, patients), level),
        estimate_of(mean_of(residual, codes, patients), "mean error", level=level),
        _explained(truth, residual, codes, patients, level),
    )


def _root(square: Mean | None, level: float) -> Estimate:
    """The delta method: d sqrt(x) = dx / (2 sqrt(x)), on the log scale, where a positive error belongs."""
    method = "root mean square error"
    if square is None or square.value == 0.0:
        return estimate_of(square, method, level=level)
    root = math.sqrt(square.value)
    return from_se(
        root,
        square.se / (2.0 * root),
        n=square.n,
        patients=square.patients,
        method=method,
        level=level,
        shape=Shape.LOG,
    )


def _explained(truth: Floats, residual: Floats, codes: Ints, patients: int, level: float) -> Estimate:
    spread = (truth - truth.mean()) ** 2 if truth.size else truth
    left = ratio_of(residual**2, spread, codes, patients)
    if left is None:
        return not_estimable("the true values do not vary", n=truth.size, patients=patients, method="R2", level=level)
    return from_se(1.0 - left.value, left.se, n=left.n, patients=left.patients, method="R2", level=level)
