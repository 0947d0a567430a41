"""Counting once for all groups gives the numbers of the plain formulas, each group and each rest by itself."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nearcase_eval.auroc import se_of
from nearcase_eval.clustered import area_of, covariance, difference
from nearcase_eval.compared import RULES, Compared, RateName, areas, called_at, chosen, compared, rates
from nearcase_eval.groups import Grouping, Minimum
from nearcase_eval.proportions import Rate, rate_of
from nearcase_eval.sample import Bools, Floats, Sample, sample_of

AT = 0.6
LEAST = Minimum(3, 3, 8)
RATE_NAMES: tuple[RateName, ...] = ("sensitivity", "specificity", "miss_rate", "false_alarm_rate")


def cohort(seed: int) -> tuple[Sample, Grouping]:
    """One to nine images a patient, some in several groups, ties, rows without a group, one group empty, one tiny."""
    rng = np.random.default_rng(seed)
    patients = int(rng.integers(20, 120))
    patient = np.repeat(np.arange(patients), rng.integers(1, 10, size=patients))
    own = rng.integers(-1, 4, size=patients)[patient]
    moved = rng.random(patient.size) < (0.0, 0.15, 1.0)[seed % 3]
    codes = np.where(moved, rng.integers(-1, 4, size=patient.size), own)
    codes[:2] = 5
    truth = rng.random(patient.size) < 0.3
    score = np.round(rng.random(patients)[patient] / 2 + rng.random(patient.size) / 2 + 0.2 * truth, seed % 2 + 1)
    order = rng.permutation(patient.size)
    names = ("A", "B", "C", "D", "nobody", "hardly anybody")
    grouping = Grouping("site", names, codes[order].astype(np.int64))
    return sample_of(truth[order], score[order], patient[order]), grouping


def counted(data: Sample, grouping: Grouping) -> Compared:
    return compared(data.truth, data.score, grouping, patient=data.patient, minimum=LEAST)


def plain_rate(data: Sample, rate: RateName, mask: Bools) -> Rate | None:
    rule = RULES[rate]
    among = mask & (data.truth == rule.of_positives)
    hits = (data.score >= AT) == rule.of_called
    return rate_of(hits[among], data.patient[among], data.patients)


def plain_to_rest(group: Rate, rest: Rate | None) -> tuple[float, float]:
    if rest is None:
        return math.nan, math.nan
    shared = float(group.part @ rest.part)
    variance = group.floored_variance + rest.floored_variance - 2.0 * (shared if math.isfinite(shared) else 0.0)
    return group.value - rest.value, math.sqrt(max(variance, 0.0))


def plain_table(groups: list[Rate]) -> Floats:
    parts = np.array([each.part for each in groups])
    table: Floats = parts @ parts.T
    np.fill_diagonal(table, [each.floored_variance for each in groups])
    return table


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("rate", RATE_NAMES)
@pytest.mark.parametrize("rest_is_chosen", [False, True])
def test_rates_are_those_of_the_plain_formula(seed: int, rate: RateName, rest_is_chosen: bool) -> None:
    data, grouping = cohort(seed)
    groups = counted(data, grouping)
    kept = chosen(groups, positives=True, negatives=True)
    found = rates(groups, called_at(groups, AT), rate, kept, rest_is_chosen=rest_is_chosen)
    known = kept.codes >= 0 if rest_is_chosen else grouping.codes >= 0
    plain = [each for place in kept.places if (each := plain_rate(data, rate, grouping.mask(place)))]
    to_rest = [
        plain_to_rest(each, plain_rate(data, rate, known & ~grouping.mask(place)))
        for place, each in zip(kept.places, plain, strict=True)
    ]
    assert len(plain) >= 2
    assert found.values.tolist() == [each.value for each in plain]
    np.testing.assert_allclose(found.covariance, plain_table(plain), rtol=0, atol=1e-14)
    np.testing.assert_allclose(found.to_rest, to_rest, rtol=0, atol=1e-12)
    among = (kept.codes >= 0) & (data.truth == RULES[rate].of_positives)
    assert (found.n, found.patients) == (int(among.sum()), data.patients_among(among))


@pytest.mark.parametrize("seed", range(12))
def test_areas_are_those_of_the_plain_formula(seed: int) -> None:
    data, grouping = cohort(seed)
    groups = counted(data, grouping)
    kept = chosen(groups, positives=True, negatives=True)
    found = areas(groups, kept)
    plain = [each for place in kept.places if (each := area_of(data.rows(grouping.mask(place))))]
    rests = [area_of(data.rows((grouping.codes >= 0) & ~grouping.mask(place))) for place in kept.places]
    table = covariance(plain)
    np.fill_diagonal(table, [se_of(each) ** 2 for each in plain])
    assert found.values.tolist() == [each.value for each in plain]
    np.testing.assert_allclose(found.covariance, table, rtol=0, atol=1e-14)
    for (value, se), group, rest in zip(found.to_rest, plain, rests, strict=True):
        assert rest is not None
        expected, variance = difference(group, rest)
        floor = max(se_of(group) ** 2 - float(covariance([group])[0, 0]), 0.0)
        assert value == pytest.approx(expected, abs=1e-14)
        assert se == pytest.approx(math.sqrt(variance + floor), abs=1e-12)


def test_groups_are_chosen_by_patients_not_rows() -> None:
    data, grouping = cohort(1)
    kept = chosen(counted(data, grouping), positives=True, negatives=True)
    reasons = {each.name: each.reason for each in kept.excluded}
    assert reasons["nobody"] == "there are no rows"
    assert reasons["hardly anybody"].endswith("at least 3 are needed")
    for place in kept.places:
        mask = grouping.mask(place)
        assert min(data.patients_among(mask & data.truth), data.patients_among(mask & ~data.truth)) >= 3


def test_a_rate_without_variation_has_exactly_no_variance_between_patients() -> None:
    patient = np.repeat(np.arange(40), 3)
    grouping = Grouping("site", ("A", "B"), (patient % 2).astype(np.int64))
    score = np.tile([0.9, 0.1, 0.1], 40)  # one of three called, in every patient
    groups = compared(np.ones(120, dtype=bool), score, grouping, patient=patient, minimum=Minimum(1, 0, 1))
    called = called_at(groups, 0.5)
    assert called.among_positives.group(0).variance == 0.0
    assert called.among_positives.rest(0) == called.among_positives.group(1)
