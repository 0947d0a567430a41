"""Variance over patients: DeLong's when patients have one row, the bootstrap's when they have more, and honest."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from strategies_eval import Cohort, mixed_patients, one_class_patients, samples

from nearcase_eval import delong
from nearcase_eval.auroc import auroc
from nearcase_eval.bootstrap import bootstrap_areas
from nearcase_eval.clustered import Area, area_of, covariance, difference
from nearcase_eval.sample import Bools, Floats, Ints, Sample, sample_of
from nearcase_eval.weighted_pass import segment_of

Draw = Callable[[np.random.Generator], Cohort]


def area(data: Sample) -> Area:
    found = area_of(data)
    assert found is not None
    return found


@given(samples())
def test_singletons_give_delongs_covariance(sample: tuple[Bools, Floats, Ints]) -> None:
    truth, score, _ = sample
    if truth.sum() < 2 or (~truth).sum() < 2:
        return
    scores = np.array([score, -score, np.arange(score.size)])
    values, expected = delong.covariance(truth, scores)
    found = [area(sample_of(truth, each)) for each in scores]
    assert [each.value for each in found] == pytest.approx(values)
    assert covariance(found) == pytest.approx(expected, abs=1e-14)


def test_obuchowski_by_hand() -> None:
    truth, patient = [1, 1, 0, 1, 0, 0], [0, 0, 0, 1, 1, 2]
    score = [0.9, 0.4, 0.5, 0.8, 0.3, 0.1]
    # V10: 1, 2/3, 1; V01: 2/3, 1, 1; A = 8/9; two patients have positives, three have negatives.
    u = np.array([1 + 2 / 3 - 2 * 8 / 9, 1 - 8 / 9])
    w = np.array([2 / 3 - 8 / 9, 1 - 8 / 9, 1 - 8 / 9])
    expected = 2 * (u @ u) / 9 + 1.5 * (w @ w) / 9 + 2 * 1.5 * (u @ w[:2]) / 9
    assert covariance([area(sample_of(truth, score, patient))])[0, 0] == pytest.approx(expected)


@pytest.mark.parametrize("draw", [one_class_patients, mixed_patients])
def test_standard_error_is_that_of_the_patient_bootstrap(draw: Draw) -> None:
    cohort = draw(np.random.default_rng(3))
    data = sample_of(cohort.truth, cohort.score, cohort.patient)
    drawn = bootstrap_areas([segment_of(data)], data.patients, replicates=2000, seed=1)
    analytic = float(np.sqrt(covariance([area(data)])[0, 0]))
    assert analytic == pytest.approx(float(drawn.std()), rel=0.06)


def test_groups_that_share_patients_covary_as_the_bootstrap_says() -> None:
    cohort = mixed_patients(np.random.default_rng(5))
    data = sample_of(cohort.truth, cohort.score, cohort.patient)
    group = np.arange(data.n) % 2 == 0  # each patient has rows of both classes in both groups
    segments = [segment_of(data, group), segment_of(data, ~group)]
    drawn = bootstrap_areas(segments, data.patients, replicates=3000, seed=1)
    first, second = area(data.rows(group)), area(data.rows(~group))
    joint = covariance([first, second])
    assert np.diag(joint) == pytest.approx(np.diag(np.cov(drawn)), rel=0.1)
    assert joint[0, 1] == pytest.approx(np.cov(drawn)[0, 1], rel=0.25)
    assert joint[0, 1] > 0.15 * joint[0, 0]  # leaving it out would show
    gap, variance = difference(first, second)
    assert gap == first.value - second.value
    assert variance == pytest.approx(joint[0, 0] + joint[1, 1] - 2 * joint[0, 1], rel=1e-12)


def test_groups_that_share_no_patient_are_independent() -> None:
    cohort = one_class_patients(np.random.default_rng(6))
    data = sample_of(cohort.truth, cohort.score, cohort.patient)
    group = data.patient % 2 == 0
    assert covariance([area(data.rows(group)), area(data.rows(~group))])[0, 1] == 0.0


def covered(draw: Draw, *, clustered: bool, runs: int = 2000) -> float:
    rng, inside = np.random.default_rng(11), 0
    for _ in range(runs):
        cohort = draw(rng)
        found = auroc(cohort.truth, cohort.score, patient=cohort.patient if clustered else None)
        assert found.low is not None
        assert found.high is not None
        inside += found.low <= cohort.auroc <= found.high
    return inside / runs


@pytest.mark.parametrize("draw", [one_class_patients, mixed_patients])
def test_intervals_over_patients_hold_what_they_say(draw: Draw) -> None:
    assert 0.93 <= covered(draw, clustered=True) <= 0.97


def test_intervals_over_images_do_not() -> None:
    assert covered(one_class_patients, clustered=False) < 0.85
