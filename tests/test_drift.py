"""Drift: nothing where nothing changed, the truth where something did, and prevalence is not drift."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from decisions import draws, fit, group

from nearcase.decide.fitted import CALIBRATION
from nearcase.serve.drift import LEAST, WINDOW, Drift, score_distance, stability
from nearcase.types import Call, Case, CaseFacts, Decision, Evidence, Hit

FIT = fit(groups=(group("sex", "F", count=25), group("sex", "M", count=25)))
POSITIVES, NEGATIVES = draws(0)


def plain_distance(one: np.ndarray, other: np.ndarray) -> float:
    """The statistic of Kolmogorov and Smirnov in the plainest way."""
    return max(abs(float((one >= at).mean() - (other >= at).mean())) for at in np.concatenate([one, other]))


def test_the_fit_s_own_scores_have_no_distance() -> None:
    found = score_distance([*POSITIVES, *NEGATIVES], FIT)
    assert found is not None
    assert found.plain == pytest.approx(0.0, abs=1e-12)
    assert found.positive_share == pytest.approx(len(POSITIVES) / (len(POSITIVES) + len(NEGATIVES)), abs=0.01)


@pytest.mark.parametrize("seed", range(5))
def test_the_distance_is_that_of_kolmogorov_and_smirnov(seed: int) -> None:
    scores = np.random.default_rng(seed).choice(np.concatenate([POSITIVES, NEGATIVES]), 150) ** (1 + seed / 4)
    found = score_distance(list(scores.round(2)), FIT)
    assert found is not None
    # At the fit's thresholds, which are all scores that the fit has seen.
    expected = plain_distance(scores.round(2), np.concatenate([POSITIVES, NEGATIVES]))
    assert found.plain <= expected + 1e-12
    assert found.plain >= expected - 0.05


def test_another_prevalence_alone_moves_the_plain_distance_only() -> None:
    rng = np.random.default_rng(1)
    rare = [*rng.choice(POSITIVES, 20), *rng.choice(NEGATIVES, 980)]
    found = score_distance(rare, FIT)
    assert found is not None
    assert found.plain > 0.15
    assert found.adjusted < 0.06
    assert found.positive_share < 0.1


def test_scores_of_another_kind_are_far_at_any_prevalence() -> None:
    found = score_distance([0.5] * LEAST, FIT)
    assert found is not None
    assert found.adjusted > 0.3


def test_few_scores_or_no_curve_have_no_number() -> None:
    assert score_distance([0.5] * (LEAST - 1), FIT) is None
    assert score_distance([0.5] * LEAST, replace(FIT, curve=())) is None
    split = next(each for each in FIT.splits if each.name == CALIBRATION)
    assert split.positive_patients > 0


def test_equal_mixes_are_stable_and_a_new_group_is_finite() -> None:
    assert stability({"F": 50, "M": 50}, {"F": 500, "M": 500}) < 0.001
    assert 0.25 < stability({"F": 50, "M": 50}, {"F": 100}) < 10
    assert stability({"F": 1}, {"other": 100}) < 100


def decision(score: float, reason: str = "") -> Decision:
    hit = Hit(Case("case", CaseFacts()), score)
    return Decision("mass", Call.ABSTAIN, (), (Evidence(hit, "1", 1.0),), reason, score=score)


def test_a_window_forgets_and_a_new_fit_begins_anew() -> None:
    drift = Drift()
    women = CaseFacts(sex="F")
    for score in [*POSITIVES, *NEGATIVES] * 5:
        drift.take(decision(float(score)), FIT, women)
    assert dict(drift.scores())["mass"].plain < 0.05
    assert {(name, attribute) for name, attribute, _ in drift.groups()} == {("mass", "sex")}
    assert next(drift.groups())[2] > 0.25
    for _ in range(WINDOW):
        drift.take(decision(0.5), FIT, women)
    assert dict(drift.scores())["mass"].plain > 0.3
    drift.take(decision(0.5), replace(FIT, made_by="again"), women)
    assert not dict(drift.scores())


def test_scores_of_another_kind_are_left_out() -> None:
    drift = Drift()
    for _ in range(LEAST):
        drift.take(decision(0.5, "SCOPE_NARROWED"), FIT, CaseFacts())
    assert not dict(drift.scores())
