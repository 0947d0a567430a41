"""Scored rows for the tests of statistics: small tied samples to search in, and cohorts whose truth is known."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from hypothesis import strategies as st

from nearcase_eval.sample import Bools, Floats, Ints


@dataclass(frozen=True, slots=True)
class Cohort:
    """Rows of patients who share a random effect, and the true AUROC of the score."""

    truth: Bools
    score: Floats
    patient: Ints
    auroc: float


@st.composite
def samples(draw: st.DrawFn, *, both: bool = True) -> tuple[Bools, Floats, Ints]:
    """Up to 40 rows of few patients and few distinct scores, so that ties and shared patients are common."""
    n = draw(st.integers(2, 40))
    truth = draw(st.lists(st.booleans(), min_size=n, max_size=n))
    if both:
        truth[0], truth[-1] = True, False
    score = draw(st.lists(st.sampled_from([-1e9, -1.5, 0.0, 0.1 + 0.2, 0.3, 7.0]), min_size=n, max_size=n))
    patient = draw(st.lists(st.integers(0, 7), min_size=n, max_size=n))
    return np.array(truth), np.array(score), np.array(patient)


def one_class_patients(rng: np.random.Generator, *, patients: int = 150, effect: float = 1.2) -> Cohort:
    """Each patient is positive or negative in all of 1 to 6 images: the naive variance is far too small."""
    sizes = rng.integers(1, 7, size=patients)
    positive = np.arange(patients) < patients // 3
    patient = np.repeat(np.arange(patients), sizes)
    truth = positive[patient]
    score = 1.5 * truth + effect * rng.normal(size=patients)[patient] + rng.normal(size=patient.size)
    return Cohort(truth, score, patient, NormalDist().cdf(1.5 / np.sqrt(2.0 * (1.0 + effect**2))))


def mixed_patients(rng: np.random.Generator, *, patients: int = 120, effect: float = 1.2) -> Cohort:
    """Half of the patients have 2 positive and 2 negative images, the others 4 negative ones.

    Pairs within a patient are ranked more surely than others, and the AUROC is the mean over all pairs.
    """
    patient = np.repeat(np.arange(patients), 4)
    truth = (patient < patients // 2) & (np.arange(patient.size) % 4 < 2)
    score = 1.0 * truth + effect * rng.normal(size=patients)[patient] + rng.normal(size=patient.size)
    pairs, within = truth.sum() * (~truth).sum(), patients // 2 * 4
    near, far = NormalDist().cdf(1.0 / np.sqrt(2.0)), NormalDist().cdf(1.0 / np.sqrt(2.0 * (1.0 + effect**2)))
    return Cohort(truth, score, patient, float((within * near + (pairs - within) * far) / pairs))


def minimal_standard(seed: int, n: int) -> Ints:
    """Park and Miller's generator, the same whole numbers as in tests/data/eval/make_expected.R."""
    found = np.empty(n, dtype=np.int64)
    for index in range(n):
        seed = 16807 * seed % 2147483647
        found[index] = seed
    return found
