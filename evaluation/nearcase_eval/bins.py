"""Binned calibration: the reliability curve, and the expected calibration error with its bootstrap interval."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nearcase_eval.bootstrap import from_replicates, patient_weights
from nearcase_eval.estimate import Estimate, not_estimable
from nearcase_eval.proportions import proportion_of, rate_of
from nearcase_eval.sample import Floats, Ints, Sample, sums


@dataclass(frozen=True, slots=True)
class CalibrationBin:
    """One point of the reliability curve."""

    predicted: float  # mean probability
    observed: Estimate


def binned(data: Sample, probability: Floats, bins: int) -> tuple[CalibrationBin, ...]:
    """Returns the bins of equal counts that hold rows, lowest first."""
    codes = equal_mass_bins(probability, bins)
    found = []
    for code in np.unique(codes):
        rows = codes == code
        rate = rate_of(data.truth[rows], data.patient[rows], data.patients)
        found.append(CalibrationBin(float(probability[rows].mean()), proportion_of(rate)))
    return tuple(found)


def expected_error(
    data: Sample,
    probability: Floats,
    bins: int,
    *,
    equal_mass: bool,
    replicates: int,
    seed: int,
    level: float,
) -> Estimate:
    """Returns the mean over rows of |observed - predicted| of the row's bin.

    Bins are those of the data in every replicate. Noise makes each bin look wrong, so value and interval are biased
    upward.
    """
    method = f"ECE, {bins} bins of equal {'counts' if equal_mass else 'width'}"
    if data.n == 0:
        return not_estimable("there are no rows", n=0, patients=0, method=method, level=level)
    codes = equal_mass_bins(probability, bins) if equal_mass else equal_width_bins(probability, bins)
    residual = data.truth - probability
    cells = codes * data.patients + data.patient  # (bin, patient) pairs
    table = sums(cells, residual, bins * data.patients).reshape(bins, data.patients)
    counts = np.bincount(data.patient, minlength=data.patients)
    value = float(np.abs(table.sum(axis=1)).sum() / data.n)
    drawn = [
        np.abs(table @ weights).sum(axis=0) / (counts @ weights)
        for weights in patient_weights(data.patients, replicates, seed=seed)
    ]
    replicated = np.concatenate(drawn) if drawn else np.zeros(0)
    return from_replicates(value, replicated, n=data.n, patients=data.patients_among(), level=level)


def equal_width_bins(probability: Floats, bins: int) -> Ints:
    """Returns the bin of each row: [0, 1/B], (1/B, 2/B], ... (Guo 2017)."""
    found: Ints = np.clip(np.ceil(probability * bins).astype(np.int64) - 1, 0, bins - 1)
    return found


def equal_mass_bins(probability: Floats, bins: int) -> Ints:
    """Returns the bin of each row by rank; equal probabilities are never torn apart, so some bins may stay empty."""
    if probability.size == 0:
        return np.zeros(0, dtype=np.int64)
    _, distinct, counts = np.unique(probability, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - (counts + 1) / 2.0  # mean rank from 0
    found: Ints = np.floor(middle[distinct] * bins / probability.size).astype(np.int64)
    return found
