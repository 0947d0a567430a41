"""Logistic regression by iteratively reweighted least squares, with a variance over patients."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nearcase_eval.sample import Bools, Floats, Ints, present, sums

STEPS = 100
LARGE = 30.0
"""A log odds beyond this is separation, not a finding: the likelihood has no maximum."""


@dataclass(frozen=True, slots=True)
class Fit:
    """Coefficients (C,) and their covariance (C, C), clustered by patient."""

    coefficients: Floats
    covariance: Floats


def fit(
    design: Floats,
    truth: Bools,
    patient: Ints,
    patients: int,
    *,
    offset: Floats | None = None,
) -> Fit | None:
    """Returns the maximum-likelihood fit of (N, C) columns; None when it has no finite answer.

    The covariance is the sandwich over patients, B (sum_p s_p s_p') B I/(I-1), with the score s_p of each patient
    (Liang and Zeger 1986).
    """
    found = maximise(design, truth, offset=offset)
    if found is None:
        return None
    coefficients, inverse = found
    base = np.zeros(truth.size) if offset is None else offset
    residual = truth - expit(base + design @ coefficients)
    scores = np.stack([sums(patient, column * residual, patients) for column in design.T], axis=1)
    seen = present(patient, patients)
    factor = seen / (seen - 1.0) if seen > 1 else np.nan
    return Fit(coefficients, factor * inverse @ (scores.T @ scores) @ inverse)


def maximise(
    design: Floats,
    truth: Bools,
    *,
    offset: Floats | None = None,
    ridge: Floats | None = None,
    weight: Floats | None = None,
) -> tuple[Floats, Floats] | None:
    """Returns (coefficients (C,), inverse information (C, C)).

    Ridge (C,) is a penalty on each squared coefficient; weight (N,) is how often each row counts, once where not given.
    """
    base = np.zeros(truth.size) if offset is None else offset
    often = np.ones(truth.size) if weight is None else weight
    penalty = np.zeros(design.shape[1]) if ridge is None else ridge
    columns = np.ascontiguousarray(design.T)  # long rows are passed through several times faster than long columns
    beta: Floats = np.zeros(design.shape[1])
    for _ in range(STEPS):
        chance = expit(base + beta @ columns)
        information = columns @ (columns * (often * chance * (1.0 - chance))).T + np.diag(penalty)
        if np.linalg.cond(information) > 1e14:
            return None
        inverse = np.linalg.inv(information).astype(np.float64, copy=False)
        step: Floats = inverse @ (columns @ (often * (truth - chance)) - penalty * beta)
        scale = max(1.0, float(np.abs(step).max()) / 5.0)  # a far first step would overshoot
        beta = (beta + step / scale).astype(np.float64, copy=False)
        if float(np.abs(beta).max()) > LARGE * 10.0:
            return None
        if float(np.abs(step).max()) < 1e-10 * (1.0 + float(np.abs(beta).max())):
            return beta, inverse
    return None


def expit(x: Floats) -> Floats:
    """Returns 1 / (1 + exp(-x)) without overflow."""
    small = np.exp(-np.abs(x))
    found: Floats = np.where(x >= 0.0, 1.0, small) / (1.0 + small)
    return found
