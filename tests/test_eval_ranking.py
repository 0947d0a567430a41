from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from scipy.stats import rankdata
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve
from strategies_eval import samples

from nearcase.errors import InvalidInput
from nearcase_eval.ranking import area, average_precision, curve, midranks, partial_area
from nearcase_eval.sample import Bools, Floats, Ints


def counted_pairs(truth: Bools, score: Floats) -> float:
    """The oracle: every positive against every negative."""
    gaps = score[truth][:, None] - score[~truth][None, :]
    return float(np.mean((gaps > 0) + 0.5 * (gaps == 0)))


@given(samples())
def test_area_is_the_share_of_pairs_in_order(sample: tuple[Bools, Floats, Ints]) -> None:
    truth, score, _ = sample
    assert area(truth, score) == pytest.approx(counted_pairs(truth, score), abs=1e-14)


@given(samples())
def test_weights_are_repetitions(sample: tuple[Bools, Floats, Ints]) -> None:
    truth, score, weights = sample
    weights[0] = weights[-1] = 1
    repeated = np.repeat(np.arange(truth.size), weights)
    for metric in (area, average_precision, partial_area):
        weighted, plain = metric(truth, score, weights=weights), metric(truth[repeated], score[repeated])
        assert weighted == pytest.approx(plain, abs=1e-12)


@given(samples())
def test_direction_is_never_flipped(sample: tuple[Bools, Floats, Ints]) -> None:
    truth, score, _ = sample
    forward, backward = area(truth, score), area(truth, -score)
    assert forward is not None
    assert backward == pytest.approx(1.0 - forward, abs=1e-14)


@given(samples())
def test_agrees_with_scikit_learn(sample: tuple[Bools, Floats, Ints]) -> None:
    truth, score, _ = sample
    assert area(truth, score) == pytest.approx(roc_auc_score(truth, score), abs=1e-12)
    assert average_precision(truth, score) == pytest.approx(average_precision_score(truth, score), abs=1e-12)
    for limit in (0.05, 0.25, 0.5, 0.999):
        expected = roc_auc_score(truth, score, max_fpr=limit)
        assert partial_area(truth, score, max_fpr=limit) == pytest.approx(expected, abs=1e-12)
    points, (fpr, tpr, _) = curve(truth, score), roc_curve(truth, score, drop_intermediate=False)
    assert points.false_positive_rate == pytest.approx(fpr)
    assert points.sensitivity == pytest.approx(tpr)


def test_whole_partial_area_is_the_area() -> None:
    truth, score = np.array([0, 1, 0, 1, 1]), np.array([1.0, 1.0, 2.0, 3.0, 0.5])
    assert partial_area(truth, score, max_fpr=1.0) == pytest.approx(area(truth, score))


@given(samples())
def test_midranks_are_scipys(sample: tuple[Bools, Floats, Ints]) -> None:
    assert midranks(sample[1]) == pytest.approx(rankdata(sample[1]))


@pytest.mark.parametrize("truth", [[0, 0], [1, 1], []])
def test_one_class_has_no_area(truth: list[int]) -> None:
    score = np.arange(len(truth))
    assert area(truth, score) is None
    assert partial_area(truth, score) is None
    if not any(truth):
        assert average_precision(truth, score) is None


def test_refuses_bad_limits_and_weights() -> None:
    with pytest.raises(InvalidInput, match="max_fpr"):
        partial_area([0, 1], [0.0, 1.0], max_fpr=0.0)
    with pytest.raises(InvalidInput, match="negative"):
        area([0, 1], [0.0, 1.0], weights=[1.0, -1.0])
