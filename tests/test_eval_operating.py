from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from numpy.typing import ArrayLike
from sklearn.metrics import confusion_matrix
from strategies_eval import samples

from nearcase_eval.estimate import State
from nearcase_eval.operating import chosen_here, operating_point
from nearcase_eval.sample import Bools, Floats, Ints
from nearcase_eval.thresholds import Threshold, empirical, youden


@given(samples())
def test_counts_are_scikit_learns_and_add_up(sample: tuple[Bools, Floats, Ints]) -> None:
    truth, score, patient = sample
    point = operating_point(truth, score, 0.3, patient=patient)
    tn, fp, fn, tp = confusion_matrix(truth, score >= 0.3, labels=[False, True]).ravel()
    counts = (point.true_negative, point.false_positive, point.false_negative, point.true_positive)
    assert counts == (tn, fp, fn, tp)
    assert point.sensitivity.value == tp / (tp + fn)
    assert point.miss_rate.value == pytest.approx(1 - tp / (tp + fn))
    assert point.flagged.value == (tp + fp) / truth.size
    assert point.ppv.state is (State.NOT_ESTIMABLE if tp + fp == 0 else point.ppv.state)


@given(samples())
def test_a_stricter_point_never_flags_more(sample: tuple[Bools, Floats, Ints]) -> None:
    truth, score, _ = sample
    points = [operating_point(truth, score, at) for at in (-2.0, 0.0, 0.3, 5.0, 9.0)]
    flagged = [point.flagged.k or 0 for point in points]
    assert flagged == sorted(flagged, reverse=True)


def test_a_rate_without_rows_is_a_state() -> None:
    point = operating_point([0, 0, 0], [0.1, 0.2, 0.9], 0.5, prevalences=[0.1])
    assert point.sensitivity.state is State.NOT_ESTIMABLE
    assert point.specificity.value == pytest.approx(2 / 3)
    assert point.predictive[0].ppv.state is State.NOT_ESTIMABLE
    assert point.ratios.positive.value is None


def test_choice_inside_the_bootstrap_is_wider_and_says_so() -> None:
    rng = np.random.default_rng(1)
    truth = rng.random(120) < 0.3
    score = rng.normal(size=120) + truth

    def choose(y: ArrayLike, s: ArrayLike, patient: ArrayLike) -> Threshold:
        return youden(y, s)

    sensitivity, specificity = chosen_here(truth, score, choose, replicates=300, seed=2)
    at = youden(truth, score).value
    assert at is not None
    fixed = operating_point(truth, score, at)
    for found, plain in ((sensitivity, fixed.sensitivity), (specificity, fixed.specificity)):
        assert found.value == plain.value
        assert "optimistic" in found.reason
        assert None not in (found.low, found.high, plain.low, plain.high)
        assert found.high - found.low > plain.high - plain.low  # type: ignore[operator]
    assert chosen_here(truth, score, choose, replicates=300, seed=2) == (sensitivity, specificity)


def test_no_threshold_here_is_a_state() -> None:
    found, _ = chosen_here(
        [0, 0, 0, 0], np.arange(4.0), lambda y, s, p: empirical(y, s, "sensitivity", 0.9, patient=p), replicates=10
    )
    assert found.state is State.NOT_ESTIMABLE
