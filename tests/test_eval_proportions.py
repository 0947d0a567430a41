from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from nearcase_eval.bootstrap import patient_weights
from nearcase_eval.estimate import State
from nearcase_eval.proportions import clopper_pearson, proportion, rate_of, wilson
from nearcase_eval.sample import Bools, Ints


@pytest.mark.parametrize(("k", "n"), [(0, 5), (1, 1), (3, 10), (29, 29), (140, 1000), (7, 8)])
@pytest.mark.parametrize("level", [0.8, 0.95, 0.99])
def test_wilson_and_clopper_pearson_are_scipys(k: int, n: int, level: float) -> None:
    for ours, name in ((wilson, "wilson"), (clopper_pearson, "exact")):
        expected = binomtest(k, n).proportion_ci(level, method=name)
        assert ours(k, n, level=level) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_independent_rows_take_the_plain_interval() -> None:
    found = proportion([1] * 9 + [0] * 3)
    assert (found.k, found.n, found.patients, found.method) == (9, 12, 12, "wilson")
    assert (found.low, found.high) == pytest.approx(wilson(9, 12))


def clustered_hits(rng: np.random.Generator, patients: int = 80) -> tuple[Bools, Ints]:
    """Images of a patient share their own chance, with a mean of 0.7 over images."""
    patient = np.repeat(np.arange(patients), 4)
    chance = rng.beta(1.4, 0.6, size=patients)
    return rng.random(patient.size) < chance[patient], patient


def test_ratio_estimator_is_the_patient_bootstraps_error() -> None:
    hits, patient = clustered_hits(np.random.default_rng(1), 200)
    found = proportion(hits, patient=patient, method="ratio")
    weights = next(patient_weights(200, 3000, seed=2, batch=3000)).astype(float)
    drawn = (np.bincount(patient, weights=hits) @ weights) / (np.bincount(patient) @ weights)
    assert found.se == pytest.approx(drawn.std(), rel=0.05)


@pytest.mark.parametrize("method", ["wilson", "clopper-pearson", "ratio"])
def test_clustered_intervals_hold_and_naive_ones_do_not(method: str) -> None:
    rng, by_patient, by_row = np.random.default_rng(3), 0, 0
    for _ in range(1000):
        hits, patient = clustered_hits(rng)
        honest, naive = proportion(hits, patient=patient, method=method), proportion(hits)
        by_patient += (honest.low or 0) <= 0.7 <= (honest.high or 0)
        by_row += (naive.low or 0) <= 0.7 <= (naive.high or 0)
    assert 0.925 <= by_patient / 1000 <= 0.985
    assert by_row / 1000 < 0.85


def test_all_alike_counts_each_patient_once() -> None:
    found = proportion(np.ones(400), patient=np.repeat(np.arange(20), 20))
    assert (found.low, found.high) == pytest.approx(wilson(20, 20))


def test_one_patient_with_most_rows_is_not_many_rows() -> None:
    hits, patient = np.ones(500, dtype=bool), np.concatenate([np.zeros(490), np.arange(1, 11)]).astype(int)
    found = proportion(hits, patient=patient)
    assert found.state is State.LOW_PRECISION
    assert found.low is not None
    assert found.low < 0.3


def test_no_rows_and_one_patient() -> None:
    assert proportion([]).state is State.NOT_ESTIMABLE
    lone = proportion([1, 0, 1], patient=["A", "A", "A"])
    assert lone.state is State.LOW_PRECISION
    assert lone.low is not None
    assert lone.low < 0.2


def test_variance_in_a_gap_is_never_zero() -> None:
    rate = rate_of(np.ones(12, dtype=bool), np.arange(12), 12)
    assert rate is not None
    assert rate.variance == 0.0
    assert rate.floored_variance == pytest.approx((14 / 16) * (2 / 16) / 16)


def test_unknown_method_is_refused() -> None:
    with pytest.raises(ValueError, match="expected wilson"):
        proportion([1, 0], method="wald")
