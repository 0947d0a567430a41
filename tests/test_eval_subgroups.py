from __future__ import annotations

import numpy as np
import pytest
from fairlearn.metrics import MetricFrame, false_positive_rate, selection_rate, true_positive_rate
from sklearn.metrics import precision_score, roc_auc_score

from nearcase_eval.ages import ages_of
from nearcase_eval.estimate import State
from nearcase_eval.groups import by_age, by_sex, crossed
from nearcase_eval.subgroups import Subgroup, subgroups, suppress
from nearcase_eval.suppression import crossing_tables

RNG = np.random.default_rng(5)
N = 3000
PATIENT = RNG.integers(0, 1500, size=N)
AGES = ages_of(RNG.uniform(18, 95, size=1500)[PATIENT])
SEX = by_sex(np.array(["F", "M"])[RNG.integers(0, 2, size=1500)[PATIENT]])
TRUTH = RNG.random(N) < 0.2
SCORE = np.round(RNG.normal(size=N) + TRUTH, 2)
EVERY = [SEX, by_age(AGES), crossed(SEX, by_age(AGES))]


@pytest.mark.parametrize("grouping", EVERY, ids=lambda grouping: grouping.attribute)
def test_groups_are_metricframes(grouping: object) -> None:
    found = subgroups(TRUTH, SCORE, grouping, threshold=0.9, patient=PATIENT)  # type: ignore[arg-type]
    known = [each for each in found if each.state is not State.NOT_ESTIMABLE]
    names = np.array(grouping.names)[grouping.codes]  # type: ignore[attr-defined]
    areas = MetricFrame(metrics=roc_auc_score, y_true=TRUTH, y_pred=SCORE, sensitive_features=names).by_group
    rates = MetricFrame(
        metrics={
            "sensitivity": true_positive_rate,
            "false_alarm_rate": false_positive_rate,
            "flagged": selection_rate,
            "ppv": precision_score,
        },
        y_true=TRUTH,
        y_pred=SCORE >= 0.9,
        sensitive_features=names,
    ).by_group
    assert len(known) >= 2
    for each in known:
        assert each.auroc.value == pytest.approx(areas[each.name], abs=1e-12)
        for metric in rates.columns:
            assert getattr(each, metric).value == pytest.approx(rates.loc[each.name, metric], abs=1e-12)


def test_counts_add_up_to_the_whole() -> None:
    for grouping in EVERY:
        found = subgroups(TRUTH, SCORE, grouping, patient=PATIENT)
        assert sum(each.n for each in found) + grouping.missing == N
        assert sum(each.positives for each in found) == TRUTH[grouping.codes >= 0].sum()


def test_an_empty_group_and_one_without_positives() -> None:
    found = subgroups([0] * 30 + [1], np.arange(31), by_sex(["F"] * 30 + [""]), threshold=3.0)
    female, male = found
    assert (male.n, male.reason, male.auroc.value) == (0, "there are no rows", None)
    assert female.sensitivity is not None
    assert female.specificity is not None
    assert female.sensitivity.state is female.auroc.state is State.NOT_ESTIMABLE
    assert female.specificity.state is State.LOW_PRECISION  # 30 negatives are enough for this one
    assert female.specificity.value == pytest.approx(0.1)


def test_many_images_of_few_patients_are_not_enough() -> None:
    truth = np.tile([1, 0], 200)
    found = subgroups(truth, np.arange(400), by_sex(["F"] * 400), patient=np.arange(400) % 4)[0]
    assert found.n == 400
    assert found.state is State.NOT_ESTIMABLE
    assert "2 patients with positives" in found.reason


def numbers_in(group: Subgroup) -> list[float]:
    shown = [group.auroc, group.prevalence, group.sensitivity, group.ppv, group.flagged]
    return [each.value for each in shown if each is not None and each.value is not None]


def test_suppressed_groups_hold_no_number() -> None:
    sex = by_sex(["F"] * 1400 + ["M"] * 1590 + ["O"] * 10)
    found = suppress(subgroups(TRUTH, SCORE, sex, threshold=0.9), 11)
    assert [each.state is State.SUPPRESSED for each in found] == [True, False, True]
    for each in found:
        if each.state is State.SUPPRESSED:
            assert numbers_in(each) == []
            assert (each.n, each.positives, each.patients, each.auroc.n, each.auroc.k) == (0, 0, 0, 0, None)
    assert suppress((), 11) == ()


def test_crossings_hide_along_rows_and_columns() -> None:
    age = by_age(ages_of(np.where(np.arange(N) < 5, 10, AGES.years)))
    both = crossed(SEX, age)
    found = suppress(subgroups(TRUTH, SCORE, both), 11, tables=crossing_tables(2, 5))
    hidden = np.array([each.state is State.SUPPRESSED for each in found]).reshape(2, 5)
    filled = np.array([each.n > 0 for each in subgroups(TRUTH, SCORE, both)]).reshape(2, 5)
    for axis in (0, 1):
        alone = (hidden.sum(axis=axis) == 1) & ((filled & ~hidden).sum(axis=axis) > 0)
        assert not alone.any()
