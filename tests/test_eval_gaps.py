from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest

from nearcase_eval.estimate import State
from nearcase_eval.gaps import Measured, Verdict, gaps_to_rest, judge, largest_gap, worst_of


def measured(values: list[float], variances: list[float], **changes: object) -> Measured:
    fields: dict[str, object] = {
        "metric": "auroc",
        "attribute": "age",
        "names": tuple("abcdef"[: len(values)]),
        "values": np.array(values),
        "covariance": np.diag(variances),
        "to_rest": tuple((0.01, 0.02) for _ in values),
        "higher_is_worse": False,
        "n": 100,
        "patients": 90,
        "excluded": (),
    }
    return Measured(**(fields | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("low", "high", "tolerance", "verdict"),
    [
        (0.0, 0.04, 0.05, Verdict.PASS),
        (0.01, 0.05, 0.05, Verdict.PASS),
        (0.04, 0.06, 0.05, Verdict.INCONCLUSIVE),
        (0.06, 0.09, 0.05, Verdict.FAIL),
        (-0.09, -0.06, 0.05, Verdict.FAIL),
        (-0.06, 0.01, 0.05, Verdict.INCONCLUSIVE),
        (None, None, 0.05, Verdict.INCONCLUSIVE),
        (0.0, 0.9, None, Verdict.NOT_JUDGED),
    ],
)
def test_verdict_needs_the_whole_interval(
    low: float | None, high: float | None, tolerance: float | None, verdict: Verdict
) -> None:
    assert judge(low, high, tolerance) is verdict


def test_two_groups_are_an_ordinary_difference() -> None:
    gap = largest_gap([measured([0.7, 0.8], [4e-4, 5e-4])], level=0.95, tolerance=0.05)
    half = NormalDist().inv_cdf(0.975) * 0.03
    assert (gap.first, gap.second) == ("b", "a")
    assert (gap.estimate.low, gap.estimate.value, gap.estimate.high) == pytest.approx((0.1 - half, 0.1, 0.1 + half))
    assert gap.minimum_detectable == pytest.approx(half + NormalDist().inv_cdf(0.8) * 0.03)
    assert gap.verdict is Verdict.INCONCLUSIVE


def test_minimum_detectable_gap_has_its_power() -> None:
    found = largest_gap([measured([0.7, 0.7], [4e-4, 4e-4])], level=0.95, tolerance=None)
    assert found.minimum_detectable is not None
    rng = np.random.default_rng(1)
    shown = [
        (largest_gap([measured(values.tolist(), [4e-4, 4e-4])], level=0.95, tolerance=None).estimate.low or 0.0) > 0.0
        for values in rng.normal([0.7, 0.7 + found.minimum_detectable], 0.02, size=(1000, 2))
    ]
    assert np.mean(shown) == pytest.approx(0.8, abs=0.04)


@pytest.mark.parametrize("true", [[0.8] * 5, [0.7, 0.8, 0.8, 0.8, 0.75]])
def test_interval_holds_the_true_largest_gap_although_it_was_picked(true: list[float]) -> None:
    rng, inside, naive = np.random.default_rng(2), 0, 0
    for values in rng.normal(true, 0.02, size=(1000, 5)):
        gap = largest_gap([measured(values.tolist(), [4e-4] * 5)], level=0.95, tolerance=None).estimate
        assert gap.low is not None
        assert gap.high is not None
        inside += gap.low <= max(true) - min(true) <= gap.high
        naive += np.ptp(values) - 1.96 * 0.02 * np.sqrt(2) <= max(true) - min(true)
    assert inside / 1000 >= 0.95
    if len(set(true)) == 1:
        assert naive / 1000 < 0.85  # the ordinary interval of the picked pair finds a gap that is not there


def test_equalised_odds_takes_the_larger_of_two_metrics() -> None:
    first = measured([0.9, 0.85], [1e-4, 1e-4], metric="sensitivity")
    second = measured([0.1, 0.3], [1e-4, 1e-4], metric="false_alarm_rate")
    gap = largest_gap([first, second], level=0.95, tolerance=0.05)
    assert (gap.metric, gap.first) == ("sensitivity or false_alarm_rate", "b")
    assert gap.estimate.value == pytest.approx(0.2)
    assert gap.verdict is Verdict.FAIL


def test_shared_patients_narrow_the_gap() -> None:
    joint = np.array([[4e-4, 3e-4], [3e-4, 4e-4]])
    apart = largest_gap([measured([0.7, 0.8], [4e-4, 4e-4])], level=0.95, tolerance=None).estimate
    together = largest_gap([measured([0.7, 0.8], [0, 0], covariance=joint)], level=0.95, tolerance=None).estimate
    assert together.se == pytest.approx((apart.se or 0) / 2)


def test_one_group_has_no_gap_and_that_is_never_a_pass() -> None:
    gap = largest_gap([measured([0.7], [1e-4])], level=0.95, tolerance=0.5)
    assert (gap.estimate.state, gap.verdict, gap.estimate.value) == (State.NOT_ESTIMABLE, Verdict.INCONCLUSIVE, None)
    lone = measured([0.7], [1e-4], to_rest=((np.nan, np.nan),))
    assert gaps_to_rest(lone, level=0.95, tolerance=0.5)[0].verdict is Verdict.INCONCLUSIVE


def test_worst_group() -> None:
    assert worst_of(measured([0.7, 0.6, 0.9], [1, 1, 1])) == "b"
    assert worst_of(measured([0.7, 0.6, 0.9], [1, 1, 1], higher_is_worse=True)) == "c"
    assert worst_of(measured([], [])) is None
