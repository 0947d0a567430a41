"""Calibration, prevalence and AUROC of a fit weigh each patient once, and only plain votes are clipped."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from made_library import finding_text

from nearcase.decide.calibrate import Calibration
from nearcase.decide.findings import read_finding
from nearcase_eval.auroc import auroc
from nearcase_eval.fit_area import patient_auroc
from nearcase_eval.fit_calibration import calibrate
from nearcase_eval.sample import Sample, sample_of

TEXT = finding_text("mass")


def weighed_once(drawn: Sample, kind: str) -> tuple[Calibration, float | None, tuple[float | None, float | None]]:
    area = patient_auroc(drawn)
    return calibrate(drawn, read_finding(TEXT, "x"), kind), area.value, (area.low, area.high)


@pytest.mark.parametrize("kind", ["isotonic", "platt"])
def test_calibration_prevalence_and_auroc_weigh_each_patient_once(kind: str) -> None:
    """200 images alike of one patient are worth what one is; of many patients, they would be most of the data."""
    rng = np.random.default_rng(5)
    truth = rng.random(80) < 0.4
    score = np.clip(rng.beta(2, 3, 80) + 0.2 * truth, 0.01, 0.99)
    odd = [int(np.argmin(np.where(truth, score, 2.0))), int(np.argmax(np.where(truth, -1.0, score)))]
    counts = np.ones(80, np.int64)
    counts[odd] = 200
    once = sample_of(truth, score, np.arange(80))
    often = sample_of(*(np.repeat(each, counts) for each in (truth, score, np.arange(80))))
    (one, area, ends), (other, area_often, ends_often) = weighed_once(once, kind), weighed_once(often, kind)
    assert other.prevalence == pytest.approx(one.prevalence) == pytest.approx(truth.mean())
    for at in np.linspace(0, 1, 41):
        assert other.probability(at) == pytest.approx(one.probability(at), abs=1e-9)
    assert area_often == pytest.approx(area)
    assert ends_often == pytest.approx(ends)
    plain = auroc(truth, score)
    assert area == pytest.approx(plain.value)
    assert ends == pytest.approx((plain.low, plain.high))
    assert abs((auroc(often.truth, often.score).value or 0.0) - (plain.value or 0.0)) > 0.1


def test_no_probability_says_more_than_so_many_patients_can() -> None:
    """Laplace's rule of succession: 20 patients, of whom the scores part every one, have several images each."""
    truth = np.arange(20) < 8
    score = np.where(truth, 0.9, 0.1) + np.arange(20) / 1000.0
    often = sample_of(*(np.repeat(each, 5) for each in (truth, score, np.arange(20))))
    found = calibrate(often, read_finding(TEXT, "x"), "isotonic")
    chances = [found.probability(at) for at in np.linspace(0, 1, 101)]
    assert chances[0] == pytest.approx(1 / 22)
    assert chances[-1] == pytest.approx(21 / 22)
    assert (min(found.probabilities), max(found.probabilities)) == (chances[0], chances[-1])
    assert chances == sorted(chances)
    assert found.probability(0.0, 0.9) > 0.1  # a prevalence moves it


def test_the_auroc_is_the_chance_of_a_drawn_pair() -> None:
    """Against the sum over pairs of patients of the share of their pairs of images; some patients have both kinds."""
    rng = np.random.default_rng(6)
    data = sample_of(rng.random(90) < 0.4, rng.integers(0, 8, 90) / 8, rng.integers(0, 30, 90))
    found = []
    for one in np.unique(data.patient[data.truth]):
        for other in np.unique(data.patient[~data.truth]):
            high = data.score[data.truth & (data.patient == one)][:, None]
            low = data.score[~data.truth & (data.patient == other)][None, :]
            found.append(((high > low) + 0.5 * (high == low)).mean())
    area = patient_auroc(data)
    assert area.value == pytest.approx(np.mean(found))
    assert area.low is not None
    assert area.high is not None
    assert area.low < np.mean(found) < area.high


def test_only_plain_votes_are_clipped() -> None:
    """Weighted shares of 1e-5 and 1e-3 are other evidence; of 10 plain votes none says less than a twentieth."""
    rng = np.random.default_rng(7)
    score = 10.0 ** rng.uniform(-6, 0, 2000)
    data = sample_of(rng.random(2000) < score**0.3, score)
    weighted = read_finding(TEXT, "x")
    plain = replace(weighted, scorer=replace(weighted.scorer, k=10, is_weighted=False))
    for kind in ("isotonic", "platt"):
        found = calibrate(data, weighted, kind)
        assert found.probability(1e-5) < 0.5 * found.probability(1e-3)
        votes = calibrate(data, plain, kind)
        assert (votes.clip, votes.probability(1e-5)) == (0.05, votes.probability(0.05))
