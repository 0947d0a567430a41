"""Thresholds keep their promises, counted in patients; counted in images they do not."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom
from strategies_eval import samples

from nearcase.errors import InvalidInput
from nearcase_eval.estimate import State
from nearcase_eval.sample import Bools, Floats, Ints
from nearcase_eval.thresholds import Aim, Unit, conformal, empirical, least_cost, pac, youden

NORMAL = NormalDist()


@given(samples(), st.sampled_from([0.1, 0.5, 0.8, 0.9, 0.95, 0.999]))
def test_empirical_reaches_its_target_and_no_stricter_one_does(
    sample: tuple[Bools, Floats, Ints], target: float
) -> None:
    truth, score, _ = sample
    at = empirical(truth, score, "sensitivity", target).value
    assert at is not None
    assert np.mean(score[truth] >= at) >= target - 1e-12
    assert np.mean(score[truth] > at) < target
    at = empirical(truth, score, "specificity", target).value
    assert at is not None
    assert np.mean(score[~truth] < at) >= target - 1e-12
    lower = score[score < at]
    if lower.size:
        assert np.mean(score[~truth] < lower.max()) < target


def test_targets_that_are_no_binary_fractions_are_met_exactly() -> None:
    truth, score = np.ones(31, dtype=bool), np.arange(31.0)
    truth[0] = False
    assert empirical(truth, score, "sensitivity", 0.9).value == 4.0  # 27 of 30 are at or above
    assert empirical(truth, score, "sensitivity", 0.7).value == 10.0


@pytest.mark.parametrize(("target", "needed"), [(0.9, 29), (0.95, 59), (0.99, 299), (0.8, 14)])
@pytest.mark.parametrize("aim", ["sensitivity", "specificity"])
def test_pac_refuses_with_the_number_of_patients_needed(target: float, needed: int, aim: Aim) -> None:
    truth = np.arange(needed + 1) > 0 if aim == "sensitivity" else np.arange(needed + 1) == 0
    score = np.arange(needed + 1.0)
    assert pac(truth, score, aim, target).value is not None
    short = pac(truth[:-1], score[:-1], aim, target)
    assert (short.state, short.value, short.patients_needed) == (State.NOT_ESTIMABLE, None, needed)
    assert short.reason.startswith(f"needs at least {needed} patients")


def test_pac_rank_is_the_largest_that_the_binomial_allows() -> None:
    for m in (29, 60, 137, 400):
        truth = np.arange(m + 1) < m
        at = pac(truth, np.arange(m + 1.0), "sensitivity", 0.9).value
        allowed = [k for k in range(1, m + 1) if binom.cdf(k - 1, m, 0.1) <= 0.05]
        assert at == max(allowed) - 1


def test_conformal_needs_nine_for_ninety_percent() -> None:
    truth = np.array([True] * 9 + [False])
    assert conformal(truth, np.arange(10.0), "sensitivity", 0.9).value == 0.0
    short = conformal(truth[1:], np.arange(9.0), "sensitivity", 0.9)
    assert (short.value, short.patients_needed) == (None, 9)


def images_of(rng: np.random.Generator, patients: int, effect: float = 1.5) -> tuple[Floats, Ints]:
    patient = np.repeat(np.arange(patients), 4)
    return effect * rng.normal(size=patients)[patient] + rng.normal(size=patient.size), patient


def image_share(threshold: float, effect: float = 1.5) -> float:
    """True share of images at or above a threshold."""
    return 1.0 - NORMAL.cdf(threshold / float(np.hypot(1.0, effect)))


def patient_share(threshold: float, effect: float = 1.5) -> float:
    """True share of patients with one of 4 images at or above a threshold, by Gauss-Hermite quadrature."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    missed = [NORMAL.cdf(threshold - effect * node) ** 4 for node in nodes]
    return 1.0 - float(np.dot(weights, missed) / weights.sum())


def kept_promises(unit: Unit, *, by_patient: bool, aim: Aim = "sensitivity", runs: int = 2000) -> float:
    rng, kept = np.random.default_rng(17), 0
    for run in range(runs):
        score, patient = images_of(rng, 60)
        found = pac(
            np.full(score.size, aim == "sensitivity"),
            score,
            aim,
            0.9,
            patient=patient if by_patient else None,
            unit=unit,
            seed=run,
        )
        assert found.value is not None
        above = (image_share if unit is Unit.IMAGE else patient_share)(found.value)
        kept += (above if aim == "sensitivity" else 1.0 - above) >= 0.9
    return kept / runs


LEAST_KEPT = 0.95 - 3 * np.sqrt(0.95 * 0.05 / 2000)
"""Of 2,000 draws, where 0.95 is promised."""


@pytest.mark.parametrize("aim", ["sensitivity", "specificity"])
@pytest.mark.parametrize("unit", Unit)
def test_pac_promise_over_calibration_sets_holds(unit: Unit, aim: Aim) -> None:
    assert kept_promises(unit, by_patient=True, aim=aim) >= LEAST_KEPT


@pytest.mark.parametrize("aim", ["sensitivity", "specificity"])
def test_counting_images_as_patients_breaks_the_promise(aim: Aim) -> None:
    assert kept_promises(Unit.IMAGE, by_patient=False, aim=aim) < LEAST_KEPT


@pytest.mark.parametrize("aim", ["sensitivity", "specificity"])
def test_conformal_promise_holds_on_average(aim: Aim) -> None:
    rng, shares = np.random.default_rng(5), []
    for run in range(1000):
        score, patient = images_of(rng, 25)
        truth = np.full(score.size, aim == "sensitivity")
        at = conformal(truth, score, aim, 0.9, patient=patient, seed=run).value
        assert at is not None
        shares.append(image_share(at) if aim == "sensitivity" else 1.0 - image_share(at))
    assert 0.9 <= np.mean(shares) <= 0.94


def test_patient_specificity_counts_only_patients_without_the_finding() -> None:
    truth = [0, 0, 1, 0, 0, 0]
    score = [0.1, 0.4, 0.9, 0.99, 0.3, 0.2]
    patient = ["a", "a", "b", "b", "c", "d"]  # b has the finding: its clear image is no patient's false alarm
    found = conformal(truth, score, "specificity", 0.5, patient=patient, unit=Unit.PATIENT)
    assert (found.patients, found.value) == (3, 0.4)  # k = 2 of 3: above c's 0.3


def test_youden_by_hand_and_strictest_of_equals() -> None:
    found = youden([0, 1, 0, 1, 1], [1.0, 2.0, 3.0, 4.0, 5.0])
    assert found.value == 4.0  # 2/3 + 1 - 1
    assert youden([0, 1], [2.0, 1.0]).state is State.NOT_ESTIMABLE  # worse than calling nothing
    assert youden([1, 1], [2.0, 1.0]).state is State.NOT_ESTIMABLE


def test_cost_follows_prevalence() -> None:
    truth, score = [0, 0, 0, 0, 1, 0, 1, 1], np.arange(8.0)
    assert least_cost(truth, score, miss=100, false_alarm=1).value == 4.0
    assert least_cost(truth, score, miss=1, false_alarm=1).value == 6.0
    rare = least_cost(truth, score, miss=1, false_alarm=1, prevalence=1e-6)
    assert rare.value == 6.0  # no false alarm there
    nothing = least_cost([1, 0], [1.0, 2.0], miss=1, false_alarm=1, prevalence=0.01)
    assert nothing.value is None
    assert "calling nothing is best" in nothing.reason


def test_refuses_targets_outside() -> None:
    for target in (0.0, 1.0, 95.0):
        with pytest.raises(InvalidInput, match="target"):
            empirical([0, 1], [0.0, 1.0], "sensitivity", target)
    with pytest.raises(InvalidInput, match="confidence"):
        pac([0, 1], [0.0, 1.0], "sensitivity", 0.9, confidence=1.0)
    with pytest.raises(InvalidInput, match="costs above 0"):
        least_cost([0, 1], [0.0, 1.0], miss=0, false_alarm=1)
