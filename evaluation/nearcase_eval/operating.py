"""What a score does at one threshold: counts, rates with intervals, and what a call means at other prevalences."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from nearcase_eval.bootstrap import drawn_rows, percentile
from nearcase_eval.estimate import Estimate, State, not_estimable
from nearcase_eval.predictive import LikelihoodRatios, Predictive, at_prevalence, likelihood_ratios
from nearcase_eval.proportions import proportion_of, rate_of_counts
from nearcase_eval.sample import Bools, Floats, Ints, Sample, sample_of
from nearcase_eval.thresholds import Threshold


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """A threshold's two-by-two table and its rates; a row is called when score >= threshold."""

    threshold: float
    true_positive: int
    false_negative: int
    false_positive: int
    true_negative: int
    sensitivity: Estimate
    specificity: Estimate
    miss_rate: Estimate  # FNR: underdiagnosis
    false_alarm_rate: Estimate  # FPR: overdiagnosis; for a "no finding" label the names swap
    ppv: Estimate  # at the prevalence of these rows
    npv: Estimate
    flagged: Estimate  # share of all rows that is called
    prevalence: Estimate
    ratios: LikelihoodRatios
    predictive: tuple[Predictive, ...]  # at each stated prevalence


def operating_point(
    y_true: ArrayLike,
    y_score: ArrayLike,
    threshold: float,
    *,
    patient: ArrayLike | None = None,
    prevalences: Sequence[float] = (),
    level: float = 0.95,
    method: str = "wilson",
) -> OperatingPoint:
    """Returns the rates at a threshold that was chosen on other data; a rate without rows is not estimable.

    Raises:
        InvalidInput: The arrays do not fit, or a prevalence is not inside 0..1.
    """
    data = sample_of(y_true, y_score, patient)
    return operating_point_of(data, threshold, prevalences=prevalences, level=level, method=method)


def operating_point_of(
    data: Sample,
    threshold: float,
    *,
    prevalences: Sequence[float] = (),
    level: float = 0.95,
    method: str = "wilson",
) -> OperatingPoint:
    """Returns the rates of a checked sample."""
    tp, fn, fp, tn = _by_patient(data, data.score >= threshold)
    sensitivity, specificity = rate_of_counts(tp, tp + fn), rate_of_counts(tn, fp + tn)
    everyone = tp + fn + fp + tn

    def share(hits: Ints, among: Ints) -> Estimate:
        return proportion_of(rate_of_counts(hits, among), level=level, method=method)

    return OperatingPoint(
        threshold,
        int(tp.sum()),
        int(fn.sum()),
        int(fp.sum()),
        int(tn.sum()),
        sensitivity=proportion_of(sensitivity, level=level, method=method),
        specificity=proportion_of(specificity, level=level, method=method),
        miss_rate=share(fn, tp + fn),
        false_alarm_rate=share(fp, fp + tn),
        ppv=share(tp, tp + fp),
        npv=share(tn, fn + tn),
        flagged=share(tp + fp, everyone),
        prevalence=share(tp + fn, everyone),
        ratios=likelihood_ratios(sensitivity, specificity, level=level),
        predictive=tuple(at_prevalence(sensitivity, specificity, q, level=level) for q in prevalences),
    )


def chosen_here(
    y_true: ArrayLike,
    y_score: ArrayLike,
    choose: Callable[[ArrayLike, ArrayLike, ArrayLike], Threshold],
    *,
    patient: ArrayLike | None = None,
    replicates: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[Estimate, Estimate]:
    """Returns (sensitivity, specificity) of a threshold chosen on these same rows, so both are optimistic.

    The patient bootstrap makes the choice again in each replicate; choose takes labels, scores and patients.

    Raises:
        InvalidInput: The arrays do not fit.
    """
    data = sample_of(y_true, y_score, patient)
    here = _rates(data, choose)
    drawn = np.array([_rates(data_at, choose) for data_at in _replicates(data, replicates, seed)])
    reason = "optimistic: the threshold was chosen on the same rows"
    counts = {"n": data.n, "patients": data.patients_among()}
    return (
        _optimistic(here[0], drawn[:, 0], reason, level, **counts),
        _optimistic(here[1], drawn[:, 1], reason, level, **counts),
    )


def _replicates(data: Sample, replicates: int, seed: int) -> Iterator[Sample]:
    for rows, patient in drawn_rows(data.patient, data.patients, replicates=replicates, seed=seed):
        yield Sample(data.truth[rows], data.score[rows], patient, data.patients)


def _rates(data: Sample, choose: Callable[[ArrayLike, ArrayLike, ArrayLike], Threshold]) -> tuple[float, float]:
    threshold = choose(data.truth, data.score, data.patient).value
    if threshold is None or not 0 < data.positives < data.n:
        return np.nan, np.nan
    called = data.score >= threshold
    return float(called[data.truth].mean()), float((~called[~data.truth]).mean())


def _optimistic(value: float, drawn: Floats, reason: str, level: float, *, n: int, patients: int) -> Estimate:
    method = "patient bootstrap with the choice inside"
    if not np.isfinite(value):
        return not_estimable("no threshold can be chosen here", n=n, patients=patients, method=method, level=level)
    low, high, undefined = percentile(drawn, level)
    if undefined:
        reason = f"{reason}; {undefined} of {drawn.size} replicates had no threshold"
    return Estimate(value, low, high, n, patients, method, level, State.LOW_PRECISION, reason)


def _by_patient(data: Sample, called: Bools) -> tuple[Ints, Ints, Ints, Ints]:
    """Each patient's true positives, false negatives, false positives and true negatives, (P,) each."""
    kind = 3 - (2 * data.truth.astype(np.int64) + called)
    tp, fn, fp, tn = np.bincount(data.patient * 4 + kind, minlength=data.patients * 4).reshape(-1, 4).T.copy()
    return tp, fn, fp, tn
