"""Variance of AUROCs over patients, and covariance of any AUROCs that share patients.

Obuchowski 1997 (Biometrics 53:567). With placements V10 of the positives and V01 of the negatives (delong.py), and the
sums of each patient p, u_p = sum V10 - m_p A and w_p = sum V01 - n_p A:

    var A = I10/(I10-1) sum u^2/m^2 + I01/(I01-1) sum w^2/n^2 + 2 I/(I-1) sum u w/(m n)

where I10, I01 and I count the patients with positives, with negatives and with either. Every row its own patient makes
it DeLong's variance exactly. AUROCs of different rows (groups, labels) take the same products, each factor as the
geometric mean of the two: groups that share no patient are then independent, and those that do are not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nearcase_eval.delong import placements
from nearcase_eval.sample import Floats, Sample, effective_patients, present, sums


@dataclass(frozen=True, slots=True)
class Area:
    """An AUROC with each patient's part in its error; areas of one sample can be subtracted and averaged."""

    value: float
    n: int
    positives: int
    negatives: int
    patients: int
    positive_patients: int
    negative_patients: int
    above: Floats  # (P,) sqrt(I10/(I10-1)) u_p / m
    below: Floats  # (P,) sqrt(I01/(I01-1)) w_p / n
    effective_positives: float  # patients of equal weight that the positives are worth
    effective_negatives: float
    cross: float  # shrinks the products of above and below to the factor I/(I-1)


def area_of(data: Sample) -> Area | None:
    """Returns the AUROC with its patients' parts; None unless both classes are there."""
    if not 0 < data.positives < data.n:
        return None
    return area_from(data, placements(data.truth, data.score))


def area_from(data: Sample, placed: tuple[float, Floats, Floats]) -> Area:
    """Returns the area of a sample with both classes whose placements (delong.py) are known."""
    value, above, below = placed
    positive, negative = data.patient[data.truth], data.patient[~data.truth]
    counts = [present(codes, data.patients) for codes in (positive, negative, data.patient)]
    f10, f01, f = (math.sqrt(count / (count - 1.0)) if count > 1 else math.nan for count in counts)
    return Area(
        value,
        data.n,
        int(positive.size),
        int(negative.size),
        patients=counts[2],
        positive_patients=counts[0],
        negative_patients=counts[1],
        above=sums(positive, above - value, data.patients) * (f10 / positive.size),
        below=sums(negative, below - value, data.patients) * (f01 / negative.size),
        effective_positives=effective_patients(positive, data.patients),
        effective_negatives=effective_patients(negative, data.patients),
        cross=f / math.sqrt(f10 * f01),
    )


def covariance(areas: Sequence[Area]) -> Floats:
    """Returns the covariance (K, K) of K areas of one sample's patients; NaN where a class has one patient."""
    above = np.array([area.above for area in areas])
    below = np.array([area.below for area in areas])
    cross = np.array([area.cross for area in areas])
    mixed = np.outer(cross, cross) * (above @ below.T)
    found: Floats = above @ above.T + below @ below.T + mixed + mixed.T
    return found


def variance_of(area: Area) -> float:
    """Returns the variance of an AUROC; NaN where a class has one patient."""
    mixed = area.cross * area.cross * (area.above @ area.below)
    return float(area.above @ area.above + area.below @ area.below + 2.0 * mixed)


def difference(first: Area, second: Area) -> tuple[float, float]:
    """Returns (first - second, its variance), from each patient's difference, so that equal areas give exactly 0."""
    above, below = first.above - second.above, first.below - second.below
    products = (
        first.cross**2 * first.above @ first.below
        + second.cross**2 * second.above @ second.below
        - first.cross * second.cross * (first.above @ second.below + second.above @ first.below)
    )
    same = first.cross == second.cross
    mixed = first.cross**2 * above @ below if same else products
    variance = float(above @ above + below @ below + 2.0 * mixed)
    return first.value - second.value, max(variance, 0.0)
