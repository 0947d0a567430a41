from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from strategies_eval import samples

from nearcase_eval.auroc import auroc, newcombe
from nearcase_eval.estimate import Shape, State
from nearcase_eval.sample import Bools, Floats, Ints


@given(samples())
def test_logit_interval_stays_inside_and_holds_the_value(sample: tuple[Bools, Floats, Ints]) -> None:
    truth, score, patient = sample
    found = auroc(truth, score, patient=patient)
    assert found.value is not None
    assert found.low is not None
    assert found.high is not None
    assert 0.0 <= found.low <= found.value <= found.high <= 1.0
    assert found.low < found.high  # never certain


@pytest.mark.parametrize("truth", [[0, 0, 0], [1, 1, 1], []])
def test_one_class_is_a_state_not_a_number(truth: list[int]) -> None:
    found = auroc(truth, np.zeros(len(truth)))
    assert found.state is State.NOT_ESTIMABLE
    assert found.value is found.low is found.high is None
    assert "there are no" in found.reason


def test_all_scores_equal_is_one_half_without_certainty() -> None:
    found = auroc([0, 1] * 50, np.full(100, 3.0))
    assert found.value == 0.5
    assert found.state is State.LOW_PRECISION
    assert found.low is not None
    assert found.low < 0.45


def test_perfect_score_keeps_an_interval() -> None:
    truth = np.arange(100) < 30
    found = auroc(truth, truth.astype(float))
    assert (found.value, found.high, found.state) == (1.0, 1.0, State.LOW_PRECISION)
    assert found.low is not None
    assert 0.9 < found.low < 1.0


def test_newcombe_meets_its_equation() -> None:
    for value in (0.0, 0.2, 0.93, 1.0):
        low, high = newcombe(value, 12, 30)
        for limit in {low, high} - {0.0, 1.0}:
            half = 42 / 2 - 1
            spread = limit * (1 - limit) * (1 + half * (1 - limit) / (2 - limit) + half * limit / (1 + limit)) / 360
            assert (value - limit) ** 2 == pytest.approx(1.959963984540054**2 * spread, rel=1e-9)


def test_one_patient_with_most_images_widens_the_interval() -> None:
    rng = np.random.default_rng(1)
    truth = np.concatenate([np.ones(900), np.arange(60) % 2]).astype(bool)
    score = np.concatenate([np.full(900, 1.0) + rng.normal(size=900) / 10, rng.normal(size=60) + truth[900:]])
    patient = np.concatenate([np.zeros(900), np.arange(1, 61)]).astype(int)
    found = auroc(truth, score, patient=patient)
    assert found.state is State.LOW_PRECISION
    assert "a few patients have most rows" in found.reason
    assert found.low is not None
    assert found.low < 0.6  # the variance over patients, 0.035, would say 0.82


def test_duplicated_rows_of_a_patient_change_nothing_over_patients() -> None:
    rng = np.random.default_rng(2)
    truth, patient = np.arange(80) % 3 == 0, np.arange(80)
    score = rng.normal(size=80) + truth
    once = auroc(truth, score, patient=patient)
    thrice = auroc(np.tile(truth, 3), np.tile(score, 3), patient=np.tile(patient, 3))
    assert (thrice.value, thrice.low, thrice.high) == pytest.approx((once.value, once.low, once.high), abs=1e-12)
    assert (once.patients, thrice.n) == (80, 240)


def test_normal_and_logit_agree_far_from_the_edge() -> None:
    rng = np.random.default_rng(3)
    truth = rng.random(4000) < 0.5
    score = rng.normal(size=4000) + 0.5 * truth
    normal, logit = auroc(truth, score, shape=Shape.NORMAL), auroc(truth, score)
    assert (normal.low, normal.high) == pytest.approx((logit.low, logit.high), abs=1e-3)


def test_exact_at_sizes_where_floats_lose_count() -> None:
    n = 300_000
    score = np.arange(n, dtype=np.float64)
    truth = score >= n / 2
    truth[0] = True
    found = auroc(truth, score)
    positives, negatives = int(truth.sum()), int((~truth).sum())
    assert found.value == (positives - 1) / positives
    assert positives + negatives == n


def test_start_is_quick_and_brings_no_heavy_library() -> None:
    script = (
        "import sys, time; start = time.process_time();"
        "import numpy as np; from nearcase_eval.auroc import auroc;"
        "r = np.random.default_rng(0); y = r.random(10_000) < 0.2; auroc(y, r.normal(size=10_000) + y);"
        "heavy = {'scipy', 'sklearn', 'pandas', 'numba', 'torch', 'onnxruntime'} & set(sys.modules);"
        "print(time.process_time() - start, *heavy)"
    )
    seconds, *heavy = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    ).stdout.split()
    assert heavy == []
    assert float(seconds) < 0.5
