from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nearcase.errors import InvalidInput
from nearcase_eval.estimate import State, z_of
from nearcase_eval.predictive import at_prevalence, likelihood_ratios
from nearcase_eval.proportions import Rate, rate_of


def rate(k: int, n: int) -> Rate:
    found = rate_of(np.arange(n) < k, np.arange(n), n)
    assert found is not None
    return found


def test_mercaldo_by_hand() -> None:
    found = at_prevalence(rate(45, 50), rate(160, 200), 0.05)
    ppv = 0.9 * 0.05 / (0.9 * 0.05 + 0.2 * 0.95)
    npv = 0.8 * 0.95 / (0.8 * 0.95 + 0.1 * 0.05)
    assert (found.ppv.value, found.npv.value) == pytest.approx((ppv, npv))
    half = z_of(0.95) * math.sqrt(0.1 / 45 + 0.8 / 40)
    expected = [1 / (1 + math.exp(-(math.log(ppv / (1 - ppv)) + side * half))) for side in (-1, 1)]
    assert [found.ppv.low, found.ppv.high] == pytest.approx(expected)
    half = z_of(0.95) * math.sqrt(0.9 / 5 + 0.2 / 160)
    expected = [1 / (1 + math.exp(-(math.log(npv / (1 - npv)) + side * half))) for side in (-1, 1)]
    assert [found.npv.low, found.npv.high] == pytest.approx(expected)


def test_at_the_samples_own_prevalence_ppv_is_the_share_of_calls() -> None:
    found = at_prevalence(rate(45, 50), rate(160, 200), 50 / 250)
    assert found.ppv.value == pytest.approx(45 / 85)
    assert found.npv.value == pytest.approx(160 / 165)


def test_likelihood_ratios_by_hand() -> None:
    found = likelihood_ratios(rate(45, 50), rate(160, 200))
    assert found.positive.value == pytest.approx(4.5)
    assert found.negative.value == pytest.approx(0.125)
    se = math.sqrt(1 / 45 - 1 / 50 + 1 / 40 - 1 / 200)  # Simel 1991
    assert found.positive.low == pytest.approx(4.5 * math.exp(-z_of(0.95) * se))
    assert found.positive.high == pytest.approx(4.5 * math.exp(z_of(0.95) * se))


@given(st.integers(0, 12), st.integers(0, 15), st.floats(0.001, 0.999))
def test_intervals_hold_the_value_and_stay_inside(tp: int, tn: int, prevalence: float) -> None:
    found = at_prevalence(rate(tp, 12), rate(tn, 15), prevalence)
    for estimate in (found.ppv, found.npv):
        if estimate.value is None:
            assert estimate.state is State.NOT_ESTIMABLE
            continue
        assert estimate.low is not None
        assert estimate.high is not None
        assert 0.0 <= estimate.low <= estimate.value <= estimate.high <= 1.0
        assert estimate.high > estimate.low


def test_no_call_has_no_ppv_and_no_division_by_zero() -> None:
    silent = at_prevalence(rate(0, 20), rate(30, 30), 0.1)
    assert silent.ppv.state is State.NOT_ESTIMABLE
    assert silent.npv.value == pytest.approx(0.9)
    perfect = likelihood_ratios(rate(20, 20), rate(30, 30))
    assert perfect.positive.value is None
    assert "division by zero" in perfect.positive.reason
    assert perfect.negative.value == 0.0


def test_missing_class_and_bad_prevalence() -> None:
    assert at_prevalence(None, rate(3, 4), 0.1).ppv.state is State.NOT_ESTIMABLE
    with pytest.raises(InvalidInput, match="prevalence"):
        at_prevalence(rate(1, 2), rate(3, 4), 1.0)
