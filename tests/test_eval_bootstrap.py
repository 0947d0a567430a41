from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import bootstrap as scipy_bootstrap
from sklearn.metrics import f1_score, roc_auc_score

from nearcase.errors import InvalidInput
from nearcase_eval.bootstrap import (
    bca,
    bootstrap_areas,
    bootstrap_metric,
    drawn_rows,
    from_replicates,
    patient_weights,
    percentile,
)
from nearcase_eval.estimate import State
from nearcase_eval.sample import sample_of
from nearcase_eval.weighted_pass import segment_of


def test_each_replicate_draws_as_many_patients_as_there_are() -> None:
    for weights in patient_weights(137, 120, seed=1):
        assert np.all(weights.sum(axis=0) == 137)


def test_strata_keep_their_sizes() -> None:
    strata = (np.arange(100) < 7).astype(np.int64)
    for weights in patient_weights(100, 60, seed=1, strata=strata):
        assert np.all(weights[:7].sum(axis=0) == 7)
        assert np.all(weights[7:].sum(axis=0) == 93)


def test_same_seed_same_draws_whatever_the_batch() -> None:
    whole = np.hstack([*patient_weights(50, 30, seed=9, batch=30)])
    parts = np.hstack([*patient_weights(50, 30, seed=9, batch=7)])
    assert np.array_equal(whole, parts)
    assert not np.array_equal(whole, np.hstack([*patient_weights(50, 30, seed=10)]))


def test_draws_are_uniform() -> None:
    drawn = np.hstack([*patient_weights(40, 4000, seed=2)]).sum(axis=1)
    assert drawn == pytest.approx(np.full(40, 4000), rel=0.06)


def test_poisson_needs_patients_and_no_strata() -> None:
    weights = next(patient_weights(400, 50, seed=1, kind="poisson"))
    assert weights.mean() == pytest.approx(1.0, abs=0.03)
    with pytest.raises(InvalidInput, match="100 patients"):
        next(patient_weights(99, 1, seed=1, kind="poisson"))


def test_rows_of_a_patient_come_together_and_twice_when_drawn_twice() -> None:
    patient = np.array([0, 1, 0, 2, 2, 2])
    for rows, codes in drawn_rows(patient, 3, replicates=50, seed=4):
        assert np.unique(codes).size == 3
        for code in range(3):
            mine = rows[codes == code]
            owner = patient[mine[0]]
            assert sorted(mine) == np.flatnonzero(patient == owner).tolist()


def test_rows_and_weights_estimate_the_same_interval() -> None:
    rng = np.random.default_rng(5)
    patient = np.repeat(np.arange(80), 3)
    truth = rng.random(240) < 0.3
    score = rng.normal(size=80)[patient] + truth
    data = sample_of(truth, score, patient)
    areas = bootstrap_areas([segment_of(data)], 80, replicates=1500, seed=1)[0]
    metric = bootstrap_metric(roc_auc_score, truth, score, patient=patient, replicates=1500, seed=2)
    assert (metric.low, metric.high) == pytest.approx(percentile(areas)[:2], abs=0.01)
    assert metric.value == pytest.approx(roc_auc_score(truth, score))


def test_any_metric_by_name_with_predictions() -> None:
    truth, called = np.arange(60) % 3 == 0, np.arange(60) % 2 == 0
    found = bootstrap_metric(f1_score, truth, called.astype(float), replicates=200, seed=3)
    assert found.value == pytest.approx(f1_score(truth, called))
    assert found.low is not None
    assert found.value is not None
    assert found.low < found.value
    assert found == bootstrap_metric(f1_score, truth, called.astype(float), replicates=200, seed=3)


def test_undefined_replicates_are_counted_and_too_many_leave_no_interval() -> None:
    drawn = np.array([0.5] * 97 + [np.nan] * 3)
    few = from_replicates(0.5, drawn, n=10, patients=10)
    assert (few.state, few.reason) == (State.LOW_PRECISION, "3 of 100 replicates were not defined")
    many = from_replicates(0.5, np.append(drawn, [np.nan] * 20), n=10, patients=10)
    assert (many.low, many.value) == (None, 0.5)
    assert "no interval: 23 of 120" in many.reason
    assert from_replicates(0.5, np.zeros(0), n=10, patients=10).low is None


def test_a_class_of_one_patient_is_often_not_drawn() -> None:
    truth, score = np.arange(30) == 0, np.arange(30.0)
    data = sample_of(truth, score)
    drawn = bootstrap_areas([segment_of(data)], 30, replicates=200, seed=1)[0]
    assert 0.25 < np.isnan(drawn).mean() < 0.5
    assert from_replicates(0.0, drawn, n=30, patients=30).low is None


def test_bca_is_scipys() -> None:
    values = np.random.default_rng(7).exponential(size=60)
    weights = np.hstack([*patient_weights(60, 20_000, seed=1)]).astype(float)
    found = bca(values @ weights / 60, float(values.mean()), values - values.mean())
    with np.errstate(all="ignore"):
        expected = scipy_bootstrap((values,), np.mean, n_resamples=20_000, rng=1).confidence_interval
    assert found[:2] == pytest.approx((expected.low, expected.high), abs=0.01)
    plain = percentile(values @ weights / 60)
    assert found.low > plain.low
    assert found.high > plain.high
