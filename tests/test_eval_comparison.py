from __future__ import annotations

import numpy as np
import pytest
from strategies_eval import one_class_patients

from nearcase.errors import InvalidInput
from nearcase_eval.auroc import auroc
from nearcase_eval.bootstrap import bootstrap_areas
from nearcase_eval.comparison import all_equal, compare
from nearcase_eval.estimate import State
from nearcase_eval.sample import sample_of
from nearcase_eval.weighted_pass import segment_of

RNG = np.random.default_rng(4)
TRUTH = RNG.random(300) < 0.3
FIRST, SECOND, THIRD = (RNG.normal(size=300) + step * TRUTH for step in (0.5, 1.0, 1.5))


def test_identical_scores_have_p_of_one() -> None:
    found = compare(TRUTH, {"a": FIRST, "same order": 2 * FIRST + 7})
    assert found.differences[0].identical
    assert (found.differences[0].p, found.differences[0].z) == (1.0, 0.0)
    assert (found.chi_square, found.p) == (None, None)


def test_two_perfect_scores_are_identical_not_significant() -> None:
    pair = compare(TRUTH, {"a": TRUTH * 1.0, "b": TRUTH * 5.0}).differences[0]
    assert (pair.p, pair.identical) == (1.0, True)


def test_a_difference_without_variation_has_no_test() -> None:
    pair = compare(TRUTH, {"perfect": TRUTH * 1.0, "constant": np.zeros(300)}).differences[0]
    assert pair.estimate.value == 0.5
    assert pair.p is None
    assert pair.estimate.state is State.LOW_PRECISION
    assert pair.is_noninferior(0.1) is None


def test_sign_is_first_minus_second() -> None:
    pair = compare(TRUTH, {"a": FIRST, "b": THIRD}).differences[0]
    assert pair.estimate.value is not None
    assert pair.estimate.value < 0
    assert pair.is_noninferior(1.0) is True
    assert pair.is_noninferior(0.01) is False


def test_two_scores_chi_square_is_z_squared() -> None:
    found = compare(TRUTH, {"a": FIRST, "b": SECOND})
    pair = found.differences[0]
    assert pair.z is not None
    assert found.chi_square == pytest.approx(pair.z**2)
    assert found.p == pytest.approx(pair.p)


def test_order_of_scores_does_not_matter_and_copies_do_not_count_twice() -> None:
    forward = compare(TRUTH, {"a": FIRST, "b": SECOND, "c": THIRD})
    backward = compare(TRUTH, {"c": THIRD, "copy": THIRD, "a": FIRST, "b": SECOND})
    assert (forward.df, backward.df) == (2, 2)
    assert backward.chi_square == pytest.approx(forward.chi_square)


def test_independent_values_give_cochrans_q() -> None:
    values, variances = np.array([0.7, 0.8, 0.74]), np.array([1e-3, 4e-4, 2e-3])
    mean = np.average(values, weights=1 / variances)
    expected = float(np.sum((values - mean) ** 2 / variances))
    assert all_equal(values, np.diag(variances))[0] == pytest.approx(expected)


def test_paired_variance_over_patients_is_the_bootstraps() -> None:
    cohort = one_class_patients(np.random.default_rng(8))
    other = cohort.score + np.random.default_rng(9).normal(size=cohort.score.size)
    pair = compare(cohort.truth, {"a": cohort.score, "b": other}, patient=cohort.patient).differences[0]
    drawn = [
        bootstrap_areas([segment_of(sample_of(cohort.truth, score, cohort.patient))], 150, replicates=2000, seed=1)[0]
        for score in (cohort.score, other)
    ]
    assert pair.estimate.se == pytest.approx(float(np.std(drawn[0] - drawn[1])), rel=0.06)


def test_areas_are_those_of_each_score() -> None:
    found = compare(TRUTH, {"a": FIRST, "b": SECOND})
    assert found.areas == (auroc(TRUTH, FIRST), auroc(TRUTH, SECOND))


def test_refuses_one_score_or_one_class() -> None:
    with pytest.raises(InvalidInput, match="at least two scores"):
        compare(TRUTH, {"a": FIRST})
    with pytest.raises(InvalidInput, match="one class is missing"):
        compare(np.zeros(300), {"a": FIRST, "b": SECOND})
