"""The AUROC of an image of a new patient: each patient weighs once among those with, and once among those without."""

from __future__ import annotations

import math

import numpy as np

from nearcase.decide.groups import DIGITS
from nearcase.decide.rate import LEVEL
from nearcase_eval.auroc import estimate_of
from nearcase_eval.clustered import Area
from nearcase_eval.estimate import Estimate, not_estimable
from nearcase_eval.sample import Floats, Sample, sums


def patient_auroc(data: Sample) -> Estimate:
    """Returns the chance that an image of a patient with the finding scores above one of a patient without.

    A patient is drawn first, then one of their images of that kind. The interval is Obuchowski's (clustered.py), of
    patients of equal weight.
    """
    if not 0 < data.positives < data.n:
        return not_estimable(
            "one class is missing", n=data.n, patients=data.patients_among(), method="AUROC", level=0.95
        )
    return estimate_of(_area(data), level=LEVEL)


def _area(data: Sample) -> Area:
    high, low = data.rows(data.truth), data.rows(~data.truth)
    above, below = _wins(high, low), _wins(low, high)
    with_it, without = (np.bincount(side.patient, minlength=data.patients) > 0 for side in (high, low))
    m, n = int(np.count_nonzero(with_it)), int(np.count_nonzero(without))
    patients = int(np.count_nonzero(with_it | without))
    f10, f01, f = (math.sqrt(count / (count - 1.0)) if count > 1 else math.nan for count in (m, n, patients))
    value = min(1.0, round(math.fsum(above[with_it]) / m, DIGITS))
    return Area(
        value,
        data.n,
        high.n,
        low.n,
        patients=patients,
        positive_patients=m,
        negative_patients=n,
        above=np.where(with_it, above - value, 0.0) * (f10 / m),
        below=np.where(without, 1.0 - below - value, 0.0) * (f01 / n),
        effective_positives=m,
        effective_negatives=n,
        cross=f / math.sqrt(f10 * f01),
    )


def _wins(side: Sample, other: Sample) -> Floats:
    """For each patient of a side, (P,), the share of the other side's patients whom their images score above."""
    order = np.argsort(other.score, kind="stable")
    images = np.bincount(other.patient, minlength=other.patients)
    total = np.concatenate([[0.0], np.cumsum(1.0 / images[other.patient[order]])])
    ends = [np.searchsorted(other.score[order], side.score, side=end) for end in ("left", "right")]
    shares = np.round((total[ends[0]] + total[ends[1]]) / (2.0 * np.count_nonzero(images)), DIGITS)
    own = np.bincount(side.patient, minlength=side.patients)
    found: Floats = sums(side.patient, shares, side.patients) / np.maximum(own, 1)
    return found
