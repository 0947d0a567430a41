from __future__ import annotations

import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss

from nearcase.errors import InvalidInput
from nearcase_eval.bins import equal_mass_bins, equal_width_bins
from nearcase_eval.calibration import calibration, prevalence_shift
from nearcase_eval.estimate import State
from nearcase_eval.logistic import expit
from nearcase_eval.sample import Bools, Floats, Ints


def cohort(
    slope: float = 1.0, shift: float = 0.0, *, patients: int = 1500, seed: int = 1
) -> tuple[Bools, Floats, Ints]:
    """Outcomes from a known logit, probabilities that distort it; two rows a patient."""
    rng = np.random.default_rng(seed)
    logit = rng.normal(-1.0, 1.2, size=patients).repeat(2)
    truth = rng.random(logit.size) < expit(slope * logit + shift)
    return truth, expit(logit), np.arange(patients).repeat(2)


def test_slope_and_intercept_are_scikit_learns() -> None:
    truth, probability, _ = cohort()
    logit = np.log(probability / (1 - probability))
    fitted = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(logit[:, None], truth)
    found = calibration(truth, probability, replicates=10)
    assert found.slope.value == pytest.approx(fitted.coef_[0, 0], rel=1e-5)
    assert found.intercept.value == pytest.approx(fitted.intercept_[0], abs=1e-5)


def test_in_the_large_makes_the_sums_meet() -> None:
    truth, probability, _ = cohort(shift=0.4)
    value = calibration(truth, probability, replicates=10).in_the_large.value
    assert value is not None
    logit = np.log(probability / (1 - probability))
    assert expit(logit + value).sum() == pytest.approx(truth.sum())


@pytest.mark.parametrize(("slope", "shift"), [(1.0, 0.0), (0.6, 0.5)])
def test_intervals_hold_the_true_distortion(slope: float, shift: float) -> None:
    hits = np.zeros(2)
    for run in range(300):
        truth, probability, patient = cohort(slope, shift, patients=250, seed=run)
        found = calibration(truth, probability, patient=patient, replicates=2)
        for index, (estimate, value) in enumerate(((found.slope, slope), (found.intercept, shift))):
            hits[index] += (estimate.low or 0.0) <= value <= (estimate.high or 0.0)
    assert np.all((hits / 300 >= 0.91) & (hits / 300 <= 0.98))


def test_patients_widen_the_slopes_interval() -> None:
    truth, probability, patient = cohort()
    twice = [np.repeat(each, 3) for each in (truth, probability, patient)]
    by_row = calibration(twice[0], twice[1], replicates=10).slope
    by_patient = calibration(twice[0], twice[1], patient=twice[2], replicates=10).slope
    assert (by_patient.se or 0) > 1.5 * (by_row.se or 1)


def test_brier_and_skill() -> None:
    truth, probability, _ = cohort()
    found = calibration(truth, probability, replicates=10)
    brier = brier_score_loss(truth, probability)
    assert found.brier.value == pytest.approx(brier, abs=1e-12)
    assert found.brier_skill.value == pytest.approx(1 - brier / (truth.mean() * (1 - truth.mean())))
    assert found.observed_expected.value == pytest.approx(truth.sum() / probability.sum())


def test_errors_are_the_formulas() -> None:
    truth, probability, _ = cohort(0.5)
    found = calibration(truth, probability, replicates=50)
    for estimate, codes in (
        (found.ece_width, equal_width_bins(probability, 10)),
        (found.ece_mass, equal_mass_bins(probability, 10)),
    ):
        bins = [codes == code for code in range(10)]
        gaps = [rows.sum() * abs(truth[rows].mean() - probability[rows].mean()) for rows in bins if rows.any()]
        assert estimate.value == pytest.approx(sum(gaps) / truth.size)
        assert estimate.high is not None
        assert estimate.value is not None
        assert estimate.high > estimate.value
    expected = calibration_curve(truth, probability, n_bins=10, strategy="quantile")
    assert [each.observed.value for each in found.bins] == pytest.approx(expected[0], abs=0.01)
    assert [each.predicted for each in found.bins] == pytest.approx(expected[1], abs=0.01)


def test_tied_probabilities_share_a_bin_and_counts_add_up() -> None:
    probability = np.array([0.2] * 50 + [0.8] * 30 + [0.9] * 20)
    codes = equal_mass_bins(probability, 10)
    assert all(len(set(codes[probability == value])) == 1 for value in (0.2, 0.8, 0.9))
    found = calibration(np.arange(100) % 2, probability, replicates=10)
    assert sum(each.observed.n for each in found.bins) == 100


def test_vote_shares_of_0_and_1_are_clipped_only_when_stated() -> None:
    rng = np.random.default_rng(2)
    share = rng.binomial(10, 0.3, size=400) / 10
    share[:5] = 1.0
    truth = rng.random(400) < np.clip(share, 0.05, 0.95)
    refused = calibration(truth, share, replicates=10)
    assert refused.slope.state is State.NOT_ESTIMABLE
    assert "exactly 0 or 1" in refused.slope.reason
    found = calibration(truth, share, votes=10, replicates=10)
    by_hand = calibration(truth, np.clip(share, 0.05, 0.95), replicates=10)
    assert found.slope.value == by_hand.slope.value
    assert found.brier.value == refused.brier.value  # Brier needs no logit


@pytest.mark.parametrize("truth", [np.zeros(20), np.ones(20)])
def test_one_class_has_no_slope(truth: Floats) -> None:
    found = calibration(truth, np.linspace(0.1, 0.9, 20), replicates=10)
    assert found.slope.state is found.in_the_large.state is found.brier_skill.state is State.NOT_ESTIMABLE
    assert found.brier.value is not None


def test_equal_and_separating_probabilities_have_no_slope() -> None:
    truth = np.arange(40) % 2
    flat = calibration(truth, np.full(40, 0.3), replicates=10)
    assert flat.slope.state is State.NOT_ESTIMABLE
    assert flat.in_the_large.value == pytest.approx(np.log(0.5 / 0.5) - np.log(0.3 / 0.7))
    assert calibration(truth, 0.2 + 0.6 * truth, replicates=10).slope.state is State.NOT_ESTIMABLE


def test_no_rows_is_a_state() -> None:
    found = calibration([], [], replicates=10)
    assert {found.brier.state, found.slope.state, found.ece_mass.state} == {State.NOT_ESTIMABLE}
    assert found.bins == ()


def test_refuses_scores_that_are_no_probabilities() -> None:
    with pytest.raises(InvalidInput, match="1 outside"):
        calibration([0, 1], [0.2, 1.2])


def test_prevalence_shift_moves_the_odds() -> None:
    logit = np.log(0.3 / 0.7) + prevalence_shift(0.2, 0.05)
    assert np.exp(logit) == pytest.approx(0.3 / 0.7 * (0.05 / 0.95) / (0.2 / 0.8))
