"""Choosing a point: promises against the evaluation suite's own, predictive values, and the laws of a choice."""

from __future__ import annotations

import dataclasses
import math
from itertools import pairwise

import numpy as np
import pytest
from decisions import ASKED, CHOICES, CONTEXT, MASS, curve_of, draws, fit, hits, point
from hypothesis import given
from hypothesis import strategies as st

from nearcase.decide.curve import most_misses, patients_needed
from nearcase.decide.decision import decide
from nearcase.decide.fitted import Fitted, Split
from nearcase.decide.operating import Choice, select
from nearcase.decide.point import Pair, Refusal
from nearcase.decide.rate import Rate, npv, ppv
from nearcase.errors import InvalidInput, NotFound, Unsupported
from nearcase.types import Call, Decision, Hit

FITTED = fit()
targets = st.floats(0.02, 0.95)
prevalences = st.floats(0.01, 0.99)


def decided(found: list[Hit], choice: Choice, fitted: Fitted = FITTED, prevalence: float = 0.1) -> Decision:
    asked = dataclasses.replace(ASKED, choice=choice, prevalence=prevalence)
    return decide(MASS, fitted, found, asked, CONTEXT).decision


cases = st.lists(st.tuples(st.floats(0.9, 1), st.sampled_from("01")), min_size=1, max_size=15).map(
    lambda pairs: hits([pair[0] for pair in pairs], [pair[1] for pair in pairs])
)


# Laws


@given(st.lists(targets, min_size=2, max_size=5))
def test_a_target_moves_the_threshold_one_way_only(asked: list[float]) -> None:
    thresholds = [select(FITTED, Choice(target_sensitivity=target)).point.threshold for target in sorted(asked)]
    assert all(one >= other for one, other in pairwise(thresholds))
    thresholds = [select(FITTED, Choice(target_specificity=target)).point.threshold for target in sorted(asked)]
    assert all(one <= other for one, other in pairwise(thresholds))


@given(st.lists(st.floats(0.05, 1e6), min_size=2, max_size=6), st.floats(0.2, 0.8))
def test_a_dearer_miss_never_flags_less(ratios: list[float], prevalence: float) -> None:
    thresholds = []
    for ratio in sorted(ratios):
        try:
            thresholds.append(select(FITTED, Choice(cost_ratio=ratio), prevalence).point.threshold)
        except Unsupported:
            thresholds.append(np.inf)  # calling nothing is best
    assert all(one >= other for one, other in pairwise(thresholds))


@given(cases, st.sampled_from(CHOICES), st.sampled_from(CHOICES))
def test_a_stricter_point_never_flags_more(found: list[Hit], one: Choice, other: Choice) -> None:
    first, second = decided(found, one, prevalence=0.5), decided(found, other, prevalence=0.5)
    assert first.operating_point is not None
    assert second.operating_point is not None
    lax, strict = sorted(
        (first, second), key=lambda each: each.operating_point.threshold if each.operating_point else 0
    )
    assert not (strict.call is Call.POSITIVE and lax.call is Call.NEGATIVE)


@given(cases, st.sampled_from((*CHOICES, Choice("both"))))
def test_the_point_changes_neither_score_nor_probability_nor_evidence(found: list[Hit], choice: Choice) -> None:
    decision = decided(found, choice, prevalence=0.5)
    usual = decided(found, Choice("middle"), prevalence=0.5)
    assert decision.score == usual.score
    assert decision.probability == usual.probability
    assert (decision.votes, decision.evidence, decision.strength) == (usual.votes, usual.evidence, usual.strength)


@given(st.lists(cases, min_size=2, max_size=20))
def test_relabelling_mirrors_the_roc(queries: list[list[Hit]]) -> None:
    mirrored = dataclasses.replace(MASS, positive_values=("0",), negative_values=("1",))
    plain = [decide(MASS, None, found, ASKED, CONTEXT).decision.score or 0.0 for found in queries]
    mirror = [decide(mirrored, None, found, ASKED, CONTEXT).decision.score or 0.0 for found in queries]
    assert mirror == pytest.approx([1.0 - score for score in plain], abs=1e-12)
    truth = [at % 2 == 0 for at in range(len(queries))]
    assert auroc(mirror, [not each for each in truth]) == pytest.approx(auroc(plain, truth))


def auroc(scores: list[float], truth: list[bool]) -> float:
    """Counts pairs; scores that differ by rounding only are ties."""
    positives = [score for score, is_positive in zip(scores, truth, strict=True) if is_positive]
    negatives = [score for score, is_positive in zip(scores, truth, strict=True) if not is_positive]
    wins = [0.5 if abs(x - y) < 1e-9 else float(x > y) for x in positives for y in negatives]
    return float(np.mean(wins))


# Calls


@pytest.mark.parametrize(
    ("score", "call"), [(0.79, Call.POSSIBLE), (0.8, Call.POSITIVE), (0.2, Call.POSSIBLE), (0.19, Call.NEGATIVE)]
)
def test_a_pair_makes_three_calls(score: float, call: Call) -> None:
    plain = dataclasses.replace(MASS, scorer=dataclasses.replace(MASS.scorer, k=100, is_weighted=False))
    positives = round(score * 100)
    found = hits([0.9] * 100, ["1"] * positives + ["0"] * (100 - positives))
    asked = dataclasses.replace(ASKED, choice=Choice("both"), prevalence=0.1)
    decision = decide(plain, fit(plain), found, asked, CONTEXT).decision
    assert decision.score == pytest.approx(score)
    assert decision.call is call
    assert decision.operating_point is not None
    assert decision.rule_out_point is not None
    assert (decision.operating_point.name, decision.rule_out_point.name) == ("strict", "lax")
    points = {each.name: each for each in fit(plain).points}
    assert decision.ppv == ppv(points["strict"].sensitivity, points["strict"].specificity, 0.1)
    assert decision.npv == npv(points["lax"].sensitivity, points["lax"].specificity, 0.1)


def test_the_default_point_is_taken_and_told() -> None:
    found = decide(MASS, FITTED, hits([0.99, 0.98], ["1", "0"]), ASKED, CONTEXT).decision
    assert found.call is Call.POSITIVE
    assert found.operating_point == next(each for each in FITTED.points if each.name == "middle").shown
    assert found.ppv is None  # no prevalence was given
    assert "threshold 0.5 of middle" in found.explanation
    assert "100 patients with the finding" in found.explanation


# Promises


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("target", [0.6, 0.8, 0.9, 0.95])
def test_a_target_is_the_pac_point_of_the_evaluation_suite(seed: int, target: float) -> None:
    thresholds = pytest.importorskip("nearcase_eval.thresholds", reason="the extra evaluation is not installed")
    positives, negatives = draws(seed)
    truth = np.r_[np.ones(positives.size), np.zeros(negatives.size)]
    score = np.r_[positives, negatives]
    fitted = fit(seed=seed)
    choices = {"sensitivity": Choice(target_sensitivity=target), "specificity": Choice(target_specificity=target)}
    for aim in choices:
        expected = thresholds.pac(truth, score, aim, target)
        found = select(fitted, choices[aim]).point
        assert found.threshold == pytest.approx(expected.value)
        assert found.method == "pac"
        assert f"{aim} of at least {target:g} per image, with confidence 0.95" in found.guarantee


@pytest.mark.parametrize(("target", "patients", "expected"), [(0.9, 28, None), (0.9, 29, 0), (0.9, 46, 1)])
def test_misses_that_a_promise_allows(target: float, patients: int, expected: int | None) -> None:
    assert most_misses(patients, target, 0.95) == expected


def test_the_fewest_patients_of_a_promise() -> None:
    assert patients_needed(0.9, 0.95) == 29
    for target in (0.5, 0.8, 0.95, 0.99):
        needed = patients_needed(target, 0.95)
        assert most_misses(needed, target, 0.95) == 0
        assert most_misses(needed - 1, target, 0.95) is None


def test_a_promise_is_kept_in_new_patients() -> None:
    """Calibration draws of 60 positives each; the true sensitivity of a threshold is known from the distribution."""
    rng = np.random.default_rng(7)
    missed = 0
    for _ in range(2000):
        sample = rng.normal(1, 1, 60)
        allowed = most_misses(60, 0.9, 0.95)
        assert allowed is not None
        threshold = np.sort(sample)[allowed]
        missed += normal_above(threshold - 1) < 0.9
    assert missed / 2000 <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 2000)


def normal_above(z: float) -> float:
    return math.erfc(z / math.sqrt(2)) / 2


def test_a_target_beyond_the_data_is_refused_with_the_patients_it_takes() -> None:
    small = fit(positives=28)
    with pytest.raises(Unsupported, match=r"29 patients with the finding .* got 28") as caught:
        select(small, Choice(target_sensitivity=0.9))
    assert (caught.value.reason, caught.value.field) == ("TARGET_UNSUPPORTED", "operating_point")
    with pytest.raises(Unsupported, match=r"299 patients without the finding .* got 200"):
        select(small, Choice(target_specificity=0.99))


def test_a_refused_target_tells_the_patients_of_the_part_and_of_the_library() -> None:
    """The calibration part is about half of the library: twice its patients are needed there."""
    expected = r"29 patients .* calibration part \(about 133 in the library\) .* got 28 in it \(128 in the library\)"
    with pytest.raises(Unsupported, match=expected):
        select(fit(positives=28), Choice(target_sensitivity=0.9))


def test_a_finding_not_worth_calling_is_refused() -> None:
    high, low = draws(3)
    reversed_scores = curve_of((low[:100], high), draws(4))
    calibration, test = fit().splits
    upside_down = fit(curve=reversed_scores, points=(), pairs=(), splits=(replace_negatives(calibration, 100), test))
    with pytest.raises(Unsupported, match="calling none costs less"):
        select(upside_down, Choice(cost_ratio=0.1), 0.1)


def replace_negatives(split: Split, count: int) -> Split:
    return dataclasses.replace(split, negative_patients=count, patients=split.positive_patients + count)


def test_a_refused_fit_is_told_by_its_name() -> None:
    fitted = fit(refusals=(Refusal("sensitivity-99", "no threshold can be promised", 299, 100),))
    with pytest.raises(Unsupported, match="a point sensitivity-99 that the data supports, got none: no threshold"):
        select(fitted, Choice("sensitivity-99"))


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(NotFound, match=r"lax, middle, strict, both") as caught:
        select(FITTED, Choice("sens95"))
    assert caught.value.reason == "OPERATING_POINT_NOT_FOUND"


def test_without_a_curve_only_names_can_be_chosen() -> None:
    with pytest.raises(Unsupported, match="fitted curve"):
        select(fit(curve=()), Choice(target_sensitivity=0.5))


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"name": "a", "cost_ratio": 1.0},
        {"target_sensitivity": 1.0},
        {"target_specificity": 0.0},
        {"cost_ratio": 0.0},
        {"cost_ratio": float("nan")},
        {"target_sensitivity": float("nan")},
    ],
)
def test_a_choice_is_one_and_inside_its_range(wrong: dict[str, float]) -> None:
    with pytest.raises(InvalidInput):
        Choice(**wrong)  # type: ignore[arg-type]


def test_a_cost_needs_a_prevalence() -> None:
    with pytest.raises(InvalidInput, match="prevalence") as caught:
        select(FITTED, Choice(cost_ratio=10.0))
    assert caught.value.field == "prevalence"


@given(st.floats(0.2, 50), prevalences)
def test_the_cheapest_point_is_found_by_trying_all(ratio: float, prevalence: float) -> None:
    positives, negatives = draws(0)
    costs = {}
    for place in FITTED.curve:
        miss = float((positives < place.threshold).mean())
        alarm = float((negatives >= place.threshold).mean())
        costs[place.threshold] = ratio * prevalence * miss + (1 - prevalence) * alarm
    try:
        found = costs[select(FITTED, Choice(cost_ratio=ratio), prevalence).point.threshold]
    except Unsupported:
        found = ratio * prevalence
    assert found == pytest.approx(min(costs.values()))


KINDS = ("target_sensitivity", "target_specificity", "cost_ratio")
odd = st.floats() | st.floats(1e-300, 1) | st.floats(1e-9, 1 - 1e-9)


@given(odd, odd, st.floats(0.2, 1), st.sampled_from(KINDS))
def test_any_number_is_answered_or_refused_by_type(number: float, prevalence: float, cosine: float, kind: str) -> None:
    try:
        choice = Choice(**{kind: number})  # type: ignore[arg-type]
        found = decided(hits([cosine, 0.5], ["1", "0"]), choice, prevalence=prevalence)
    except (InvalidInput, Unsupported):
        return
    for interval in (found.ppv, found.npv):
        assert interval is None or 0.0 <= interval.low <= interval.value <= interval.high <= 1.0


# Predictive values


@pytest.mark.parametrize("prevalence", [0.001, 0.02, 0.5, 0.9])
@pytest.mark.parametrize(("hit", "quiet"), [(45, 80), (50, 80), (45, 100), (50, 100), (0, 100), (1, 1)])
def test_predictive_values_are_those_of_the_evaluation_suite(prevalence: float, hit: int, quiet: int) -> None:
    predictive = pytest.importorskip("nearcase_eval.predictive", reason="the extra evaluation is not installed")
    proportions = pytest.importorskip("nearcase_eval.proportions")
    called = [np.arange(n) < k for k, n in ((hit, 50), (quiet, 100))]
    rates = [proportions.rate_of(each, np.arange(each.size), each.size) for each in called]
    expected = predictive.at_prevalence(*rates, prevalence)
    ours = (Rate(hit / 50, 50.0), Rate(quiet / 100, 100.0))
    for found, estimate in ((ppv(*ours, prevalence), expected.ppv), (npv(*ours, prevalence), expected.npv)):
        if estimate.value is None:
            assert found is None
        else:
            assert found is not None
            numbers = (found.value, found.low, found.high)
            assert numbers == pytest.approx((estimate.value, estimate.low, estimate.high), rel=1e-9)


def test_predictive_values_by_hand() -> None:
    found = ppv(Rate(0.9, 100.0), Rate(0.8, 200.0), 0.02)
    assert found is not None
    assert found.value == pytest.approx(0.018 / (0.018 + 0.196))
    assert found.low < found.value < found.high


def test_a_rates_interval_is_wilsons() -> None:
    found = Rate(0.9, 50.0).interval
    assert (found.low, found.high) == pytest.approx((0.786398, 0.956524), abs=1e-6)  # R: binom::binom.wilson(45, 50)
    assert Rate(1.0, 10.0).interval.low == pytest.approx(0.722467, abs=1e-6)
    assert Rate(1.0, 10.0).interval.high == 1.0


@pytest.mark.parametrize("prevalence", [0.0, 1.0, -0.1, float("nan")])
def test_a_prevalence_is_inside_0_and_1(prevalence: float) -> None:
    with pytest.raises(InvalidInput, match="prevalence"):
        decided(hits([0.9], ["1"]), Choice("lax"), prevalence=prevalence)


# What is no fit


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"pairs": (Pair("both", "lax", "strict"),)}, "rule-in at or above"),
        ({"pairs": (Pair("both", "high", "lax"),)}, "fitted points for the pair"),
        ({"pairs": (Pair("lax", "strict", "lax"),)}, "different names"),
        ({"curve": FITTED.curve[::-1]}, "strictest threshold to the laxest"),
        ({"curve": FITTED.curve[:-40]}, "calls every patient"),
        ({"splits": (Split("test", 1, 1, 1, 1),)}, "splits calibration and test"),
        ({"unit": "study"}, "unit image or patient"),
    ],
)
def test_a_fit_that_contradicts_itself_is_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        fit(**wrong)  # type: ignore[arg-type]


def test_a_point_is_told_with_the_patients_of_the_held_out_split() -> None:
    found = select(FITTED, Choice(target_sensitivity=0.8)).point
    assert (found.positive_patients, found.negative_patients) == (100, 200)
    test = draws(1)
    assert (
        found.shown
        == dataclasses.replace(
            point("x", found.threshold, test), name=found.name, method=found.method, guarantee=found.guarantee
        ).shown
    )
    assert curve_of(draws(0), test) == FITTED.curve
