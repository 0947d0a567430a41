"""Gaps agree with fairlearn where fairlearn is right, and say so where it is not."""

from __future__ import annotations

import numpy as np
import pytest
from fairlearn.metrics import MetricFrame, equalized_odds_difference, false_positive_rate, true_positive_rate
from sklearn.metrics import roc_auc_score

from nearcase_eval.fairness import RateName, auroc_gaps, equalised_odds, rate_gaps
from nearcase_eval.gaps import Verdict
from nearcase_eval.groups import Grouping, by_column, by_sex
from nearcase_eval.sample import Bools, Floats, Ints

AT = 0.8


def cohort(seed: int = 1, *, patients: int = 600, gap: float = 0.6) -> tuple[Bools, Floats, Ints, Grouping]:
    """Four sites, the last one harder; two images a patient, sometimes at two sites."""
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(patients), 2)
    site = np.where(rng.random(patient.size) < 0.1, rng.integers(0, 4, size=patient.size), patient % 4)
    truth = rng.random(patient.size) < 0.3
    score = rng.normal(size=patients)[patient] / 2 + rng.normal(size=patient.size) + truth * (1.6 - gap * (site == 3))
    return truth, np.round(score, 1), patient, by_column("site", np.array(list("ABCD"))[site])


def frame(metric: object, truth: Bools, predicted: object, grouping: Grouping) -> MetricFrame:
    return MetricFrame(metrics=metric, y_true=truth, y_pred=predicted, sensitive_features=grouping.codes)


def test_auroc_gap_is_metricframes() -> None:
    truth, score, patient, site = cohort()
    found = auroc_gaps(truth, score, site, patient=patient)
    expected = frame(roc_auc_score, truth, score, site)
    assert found.largest.estimate.value == pytest.approx(expected.difference(), abs=1e-12)
    assert found.worst == "D"
    for gap, (code, rows) in zip(found.to_rest, ((code, site.mask(code)) for code in range(4)), strict=True):
        assert gap.first == site.names[code]
        rest = roc_auc_score(truth[~rows], score[~rows])
        assert gap.estimate.value == pytest.approx(expected.by_group[code] - rest, abs=1e-12)


def test_rates_and_equalised_odds_are_fairlearns() -> None:
    truth, score, patient, site = cohort()
    called = score >= AT
    pairs: list[tuple[RateName, object]] = [
        ("sensitivity", true_positive_rate),
        ("false_alarm_rate", false_positive_rate),
    ]
    for name, metric in pairs:
        found = rate_gaps(truth, score, AT, site, name, patient=patient)
        assert found.largest.estimate.value == pytest.approx(frame(metric, truth, called, site).difference())
    odds = equalised_odds(truth, score, AT, site, patient=patient)
    expected = equalized_odds_difference(truth, called, sensitive_features=site.codes)
    assert odds.estimate.value == pytest.approx(expected)


def test_a_group_without_positives_is_left_out_where_fairlearn_counts_it_as_zero() -> None:
    truth, score, patient, site = cohort()
    lost = truth & site.mask(0)
    truth = truth & ~lost
    called = score >= AT
    odds = equalised_odds(truth, score, AT, site, patient=patient)
    kept = ~site.mask(0)
    expected = equalized_odds_difference(truth[kept], called[kept], sensitive_features=site.codes[kept])
    assert odds.estimate.value == pytest.approx(expected)
    assert equalized_odds_difference(truth, called, sensitive_features=site.codes) > expected + 0.3
    found = auroc_gaps(truth, score, site, patient=patient)
    assert [(each.name, each.reason) for each in found.excluded] == [
        ("A", "0 patients with positives, at least 10 are needed")
    ]
    assert [each.name for each in rate_gaps(truth, score, AT, site, "false_alarm_rate").excluded] == []


def test_rows_without_the_attribute_are_in_no_gap() -> None:
    truth, score, patient, site = cohort()
    codes = site.codes.copy()
    codes[:300] = -1
    known = codes >= 0
    part = Grouping("site", site.names, codes[known])
    whole = auroc_gaps(truth, score, Grouping("site", site.names, codes), patient=patient, permutations=50)
    alone = auroc_gaps(truth[known], score[known], part, patient=patient[known], permutations=50)
    assert whole.largest.estimate.value == alone.largest.estimate.value
    assert whole.largest.estimate.n == int(known.sum())


def test_verdicts() -> None:
    truth, score, patient, site = cohort(patients=4000, gap=1.2)
    assert auroc_gaps(truth, score, site, patient=patient, tolerance=0.02).largest.verdict is Verdict.FAIL
    truth, score, patient, site = cohort(patients=8000, gap=0.0)
    assert auroc_gaps(truth, score, site, patient=patient, tolerance=0.1).largest.verdict is Verdict.PASS
    truth, score, patient, site = cohort(patients=300, gap=0.0)
    assert auroc_gaps(truth, score, site, patient=patient, tolerance=0.02).largest.verdict is Verdict.INCONCLUSIVE


def test_permutation_p_and_homogeneity_agree_that_there_is_a_gap() -> None:
    truth, score, patient, site = cohort(gap=1.5)
    found = auroc_gaps(truth, score, site, patient=patient, permutations=199, seed=3)
    assert found.largest.p == 1 / 200
    assert found.largest.expected_by_chance is not None
    assert 0.0 < found.largest.expected_by_chance < found.largest.estimate.value  # type: ignore[operator]
    assert found.homogeneity_p is not None
    assert found.homogeneity_p < 1e-3
    assert found.df == 3
    assert found == auroc_gaps(truth, score, site, patient=patient, permutations=199, seed=3)


@pytest.mark.parametrize("metric", ["auroc", "miss_rate", "odds"])
def test_false_alarms_stay_below_five_percent(metric: str) -> None:
    """Under no difference the simultaneous interval leaves out 0, and p is at most 0.05, in few cohorts."""
    intervals, small = 0, 0
    for seed in range(400):
        truth, score, patient, site = cohort(seed, patients=300, gap=0.0)
        options = {"patient": patient, "permutations": 59, "seed": seed}
        if metric == "auroc":
            gap = auroc_gaps(truth, score, site, **options).largest  # type: ignore[arg-type]
        elif metric == "miss_rate":
            gap = rate_gaps(truth, score, AT, site, "miss_rate", **options).largest  # type: ignore[arg-type]
        else:
            gap = equalised_odds(truth, score, AT, site, **options)  # type: ignore[arg-type]
        assert gap.estimate.low is not None
        assert gap.p is not None
        intervals += gap.estimate.low > 0.0
        small += gap.p <= 0.05
    assert intervals / 400 <= 0.08
    assert small / 400 <= 0.08


def test_rate_variance_of_a_gap_is_the_patient_bootstraps() -> None:
    truth, score, patient, site = cohort(patients=400)
    found = rate_gaps(truth, score, AT, site, "sensitivity", patient=patient).to_rest[0].estimate
    rng, drawn = np.random.default_rng(1), []
    for _ in range(800):
        rows = (2 * rng.integers(400, size=400)[:, None] + [0, 1]).ravel()
        positive, mine, called = truth[rows], site.mask(0)[rows], score[rows] >= AT
        drawn.append(called[positive & mine].mean() - called[positive & ~mine].mean())
    assert found.se == pytest.approx(float(np.std(drawn)), rel=0.1)


def test_a_perfect_small_group_is_not_certain() -> None:
    truth = np.tile([True, False], 40)
    group = by_column("site", ["A"] * 24 + ["B"] * 56)
    score = np.where(group.mask(0), truth * 1.0, np.random.default_rng(1).normal(size=80) + truth)
    found = auroc_gaps(truth, score, group, tolerance=0.3)
    assert found.largest.first == "A"
    gap = found.largest.estimate
    area = auroc_gaps(truth, score, group).largest.estimate
    assert gap == area
    assert found.to_rest[0].estimate.se is not None
    assert found.to_rest[0].estimate.se > 0.06


@pytest.mark.parametrize("sexes", [[], [""] * 40, ["F"] * 40], ids=["no rows", "all missing", "one group"])
def test_nothing_to_compare_is_inconclusive_not_fair(sexes: list[str]) -> None:
    truth, score = np.arange(len(sexes)) % 2, np.arange(len(sexes))
    group = by_sex(sexes)
    gaps = auroc_gaps(truth, score, group, permutations=9, tolerance=0.5)
    odds = equalised_odds(truth, score, 2.0, group, permutations=9, tolerance=0.5)
    for gap in (gaps.largest, odds):
        assert (gap.verdict, gap.estimate.value, gap.p) == (Verdict.INCONCLUSIVE, None, None)
    assert gaps.homogeneity is None
    assert {each.name for each in gaps.excluded} >= {"M"}
