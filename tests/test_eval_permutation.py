from __future__ import annotations

import numpy as np
import pytest

from nearcase_eval.permutation import chance_of, permuted_area_gaps, permuted_rate_gaps
from nearcase_eval.ranking import area
from nearcase_eval.sample import Ints, Sample, sample_of


def cohort(seed: int, *, gap: float = 0.0, patients: int = 90) -> tuple[Sample, Ints]:
    """Three groups of patients with two images each; the last group's positives are harder by gap."""
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(patients), 2)
    group = (np.arange(patients) % 3)[patient]
    truth = rng.random(patient.size) < 0.4
    score = rng.normal(size=patients)[patient] + rng.normal(size=patient.size) + truth * (1.5 - gap * (group == 2))
    return sample_of(truth, score, patient), group


def test_p_by_hand_never_zero() -> None:
    found = chance_of(0.2, np.array([0.1, 0.2 - 1e-15, 0.3, 0.05]))
    assert (found.p, found.permutations) == (3 / 5, 4)
    assert chance_of(9.0, np.zeros(99)).p == 1 / 100


def test_gaps_are_those_of_relabelled_patients() -> None:
    """The oracle: relabel whole patients within their outcome classes, one at a time, with plain AUROCs."""
    data, group = cohort(1)
    found = permuted_area_gaps(data, group, permutations=400, seed=2)
    owner = group[::2]
    classes = 2 * np.maximum.reduceat(data.truth, np.arange(0, data.n, 2)) + np.maximum.reduceat(
        ~data.truth, np.arange(0, data.n, 2)
    )
    rng, oracle = np.random.default_rng(3), []
    for _ in range(400):
        moved = owner.copy()
        for code in np.unique(classes):
            rows = np.flatnonzero(classes == code)
            moved[rows] = rng.permutation(moved[rows])
        labels = moved[data.patient]
        areas = [area(data.truth[labels == code], data.score[labels == code]) or 0.0 for code in range(3)]
        oracle.append(max(areas) - min(areas))
    assert np.mean(found) == pytest.approx(np.mean(oracle), rel=0.08)
    assert np.quantile(found, 0.95) == pytest.approx(np.quantile(oracle, 0.95), rel=0.12)


def test_p_is_uniform_without_a_gap_and_small_with_one() -> None:
    def p_of(seed: int, gap: float) -> float:
        data, group = cohort(seed, gap=gap)
        areas = [area(data.truth[group == code], data.score[group == code]) or 0.0 for code in range(3)]
        return chance_of(max(areas) - min(areas), permuted_area_gaps(data, group, permutations=99, seed=seed)).p

    null = np.array([p_of(seed, 0.0) for seed in range(200)])
    assert 0.02 <= np.mean(null <= 0.05) <= 0.09
    assert 0.4 <= np.mean(null) <= 0.6
    assert np.mean([p_of(seed, 2.0) <= 0.05 for seed in range(40)]) > 0.7


def test_labels_of_images_permuted_as_if_independent_would_see_gaps_everywhere() -> None:
    """The same cohorts with twelve images a patient: by patient the test holds, by image it does not."""

    def rejected(by_patient: bool) -> float:
        count = 0
        for seed in range(100):
            rng = np.random.default_rng(seed)
            patient = np.repeat(np.arange(60), 12)
            truth = (np.arange(60) % 2 == 0)[patient]
            group = (np.arange(60) // 2 % 2)[patient]
            score = 1.5 * rng.normal(size=60)[patient] + rng.normal(size=patient.size) + truth
            data = sample_of(truth, score, patient if by_patient else None)
            areas = [area(truth[group == code], score[group == code]) or 0.0 for code in (0, 1)]
            drawn = permuted_area_gaps(data, group, permutations=59, seed=seed)
            count += chance_of(abs(areas[0] - areas[1]), drawn).p <= 0.05
        return count / 100

    assert rejected(by_patient=True) <= 0.12
    assert rejected(by_patient=False) > 0.4


def test_rates_and_seed() -> None:
    data, group = cohort(4)
    called = data.score >= 0.5
    rates = [(called, data.truth), (called, ~data.truth)]
    found = permuted_rate_gaps(data, group, rates, permutations=200, seed=1)
    assert np.array_equal(found, permuted_rate_gaps(data, group, rates, permutations=200, seed=1))
    single = [permuted_rate_gaps(data, group, [rate], permutations=200, seed=1) for rate in rates]
    assert np.array_equal(found, np.maximum(*single))
    assert np.all((found >= 0) & (found <= 1))
