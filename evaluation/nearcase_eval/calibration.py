"""Whether probabilities mean what they say (Van Calster 2016, 2019): in the large, slope, O/E, ECE and Brier.

k-nearest-neighbour vote shares hit 0 and 1, where the logit is infinite: they are clipped to 1/(2k) .. 1 - 1/(2k) when
`votes` is k. Other probabilities of exactly 0 or 1 leave in-the-large and slope without an estimate, with the reason.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from nearcase.errors import InvalidInput
from nearcase_eval.bins import CalibrationBin, binned, expected_error
from nearcase_eval.estimate import Estimate, Shape, from_se, not_estimable
from nearcase_eval.logistic import Fit, fit
from nearcase_eval.means import estimate_of, mean_of, ratio_of
from nearcase_eval.sample import Floats, Sample, probabilities, sample_of


@dataclass(frozen=True, slots=True)
class Calibration:
    """How far probabilities are from what happened, over all rows."""

    in_the_large: Estimate  # log odds that must be added; 0 is right, above 0 the risk is understated
    intercept: Estimate  # of the fit that has the slope
    slope: Estimate  # 1 is right, below 1 the probabilities are too extreme
    observed_expected: Estimate  # 1 is right
    ece_width: Estimate  # ten bins of equal width; biased upward when bins are small
    ece_mass: Estimate  # ten bins of equal counts
    brier: Estimate
    brier_skill: Estimate  # 1 - Brier / that of always saying the prevalence
    bins: tuple[CalibrationBin, ...]  # of equal counts, for the plot


@dataclass(frozen=True, slots=True)
class CalibrationFit:
    """What of a calibration can be compared between groups: no bins, whose errors depend on their size."""

    in_the_large: Estimate
    intercept: Estimate
    slope: Estimate
    observed_expected: Estimate
    brier: Estimate


def calibration(
    y_true: ArrayLike,
    probability: ArrayLike,
    *,
    patient: ArrayLike | None = None,
    votes: int | None = None,
    bins: int = 10,
    replicates: int = 500,
    seed: int = 0,
    level: float = 0.95,
) -> Calibration:
    """Returns the calibration of probabilities, with intervals over patients (the bootstrap's for ECE).

    Raises:
        InvalidInput: Probabilities are not in 0..1, votes or bins are below 1, or the arrays do not fit.
    """
    found = probabilities(probability, "probability")
    if bins < 1 or (votes is not None and votes < 1):
        raise InvalidInput("expected at least one bin and one vote", field="bins" if bins < 1 else "votes")
    data = sample_of(y_true, found, patient)
    fitted, truth = fit_of(data, votes=votes, level=level), data.truth.astype(np.float64)
    error, prevalence = (found - truth) ** 2, truth.mean() if data.n else 0.0
    draws = {"replicates": replicates, "seed": seed}
    return Calibration(
        fitted.in_the_large,
        fitted.intercept,
        fitted.slope,
        fitted.observed_expected,
        expected_error(data, found, bins, equal_mass=False, level=level, **draws),
        expected_error(data, found, bins, equal_mass=True, level=level, **draws),
        fitted.brier,
        _skill(data, error, (truth - prevalence) ** 2, level),
        binned(data, found, bins),
    )


def fit_of(data: Sample, *, votes: int | None, level: float) -> CalibrationFit:
    """Returns the part of the calibration that needs no bins, of a checked sample whose scores are probabilities."""
    clipped = data.score if votes is None else np.clip(data.score, 0.5 / votes, 1.0 - 0.5 / votes)
    in_the_large, intercept, slope = _logistic(data, clipped, level)
    truth = data.truth.astype(np.float64)
    brier = mean_of((data.score - truth) ** 2, data.patient, data.patients)
    return CalibrationFit(
        in_the_large,
        intercept,
        slope,
        _observed_expected(data, truth, data.score, level),
        estimate_of(brier, "Brier score", level=level),
    )


def prevalence_shift(fitted_at: float, used_at: float) -> float:
    """Returns what to add to the log odds when the prevalence changes, all else being equal (Saerens 2002).

    Raises:
        InvalidInput: A prevalence is not inside 0..1.
    """
    if not (0.0 < fitted_at < 1.0 and 0.0 < used_at < 1.0):
        raise InvalidInput("expected prevalences inside 0..1", field="prevalence")
    return float(np.log(used_at / (1.0 - used_at)) - np.log(fitted_at / (1.0 - fitted_at)))


def _logistic(data: Sample, probability: Floats, level: float) -> tuple[Estimate, Estimate, Estimate]:
    reason = _why_not(data, probability)
    if reason:
        missing = not_estimable(reason, n=data.n, patients=data.patients_among(), method="logistic fit", level=level)
        return missing, missing, missing
    logit = np.log(probability) - np.log1p(-probability)
    ones = np.ones((data.n, 1))
    offset = fit(ones, data.truth, data.patient, data.patients, offset=logit)
    both = fit(np.column_stack([ones, logit]), data.truth, data.patient, data.patients) if np.ptp(logit) > 0 else None
    return _term(offset, 0, data, level), _term(both, 0, data, level), _term(both, 1, data, level)


def _term(found: Fit | None, index: int, data: Sample, level: float) -> Estimate:
    patients = data.patients_among()
    if found is None:
        reason = "the fit has no finite answer: probabilities separate the classes or do not vary"
        return not_estimable(reason, n=data.n, patients=patients, method="logistic fit", level=level)
    value, se = float(found.coefficients[index]), float(np.sqrt(found.covariance[index, index]))
    return from_se(value, se, n=data.n, patients=patients, method="logistic fit, variance over patients", level=level)


def _why_not(data: Sample, probability: Floats) -> str:
    if not 0 < data.positives < data.n:
        return "needs positives and negatives, one class is missing"
    certain = int(np.count_nonzero((probability == 0.0) | (probability == 1.0)))
    return f"{certain} probabilities are exactly 0 or 1: state the number of votes, or clip" if certain else ""


def _observed_expected(data: Sample, truth: Floats, probability: Floats, level: float) -> Estimate:
    found = ratio_of(truth, probability, data.patient, data.patients)
    if found is None or found.value == 0.0:
        reason = "no positives happened or none were expected"
        return not_estimable(reason, n=data.n, patients=data.patients_among(), method="O/E", level=level)
    return found.estimate("O/E", level=level, shape=Shape.LOG)


def _skill(data: Sample, error: Floats, reference: Floats, level: float) -> Estimate:
    found = ratio_of(error, reference, data.patient, data.patients)
    method, patients = "Brier skill", data.patients_among()
    if found is None:
        return not_estimable("one class is missing", n=data.n, patients=patients, method=method, level=level)
    return from_se(1.0 - found.value, found.se, n=data.n, patients=patients, method=method, level=level)
