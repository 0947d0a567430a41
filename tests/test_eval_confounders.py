from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, cross_val_predict

from nearcase.errors import InvalidInput
from nearcase_eval.confounders import baselines, design_of, patient_folds
from nearcase_eval.estimate import State
from nearcase_eval.logistic import expit
from nearcase_eval.sample import sample_of

RNG = np.random.default_rng(1)
PATIENT = np.repeat(np.arange(700), 2)
AGE = RNG.uniform(20, 90, size=700)[PATIENT]
SEX = np.array(["F", "M"])[RNG.integers(0, 2, size=700)[PATIENT]]
TRUTH = RNG.random(1400) < expit((AGE - 65) / 12)
SCORE = AGE + RNG.normal(size=1400)  # a "model" that reads nothing but the age


def test_a_score_that_only_reads_age_does_not_beat_age() -> None:
    age, sex, both = baselines(TRUTH, SCORE, {"age": AGE, "sex": SEX}, patient=PATIENT)
    assert age.auroc.value == pytest.approx(roc_auc_score(TRUTH, AGE), abs=0.005)
    assert age.score_minus_baseline is not None
    assert age.score_minus_baseline.estimate.low is not None
    assert age.score_minus_baseline.estimate.low < 0.005
    assert sex.auroc.low is not None
    assert sex.auroc.low < 0.5
    assert sex.score_minus_baseline is not None
    assert sex.score_minus_baseline.estimate.low is not None
    assert sex.score_minus_baseline.estimate.low > 0.2
    assert both.columns == ("age", "sex")


def test_risk_that_does_not_rise_with_age_is_found_by_its_square() -> None:
    truth = RNG.random(1400) < expit(((AGE - 55) / 12) ** 2 - 2)
    assert abs(roc_auc_score(truth, AGE) - 0.5) < 0.06
    found = baselines(truth, SCORE, {"age": AGE}, patient=PATIENT)[0]
    assert found.auroc.value is not None
    assert found.auroc.value > 0.75


def test_agrees_with_scikit_learns_cross_validation() -> None:
    design = design_of("age", AGE, 1400)
    model = LogisticRegression(C=1.0, max_iter=1000)
    predicted = cross_val_predict(model, design, TRUTH, groups=PATIENT, cv=GroupKFold(5), method="predict_proba")[:, 1]
    found = baselines(TRUTH, SCORE, {"age": AGE}, patient=PATIENT)[0]
    assert found.auroc.value == pytest.approx(roc_auc_score(TRUTH, predicted), abs=0.005)


def test_columns_that_say_nothing_come_out_at_one_half_on_average() -> None:
    values = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        truth = rng.random(150) < 0.2
        found = baselines(truth, rng.normal(size=150), {"sex": rng.integers(0, 2, size=150).astype(str)}, seed=seed)
        assert found[0].auroc.value is not None
        values.append(found[0].auroc.value)
    assert np.mean(values) == pytest.approx(0.5, abs=0.035)


def test_no_patient_is_in_two_folds_and_positives_are_spread() -> None:
    data = sample_of(TRUTH, SCORE, PATIENT)
    fold = patient_folds(data, 5, seed=1)
    assert np.array_equal(fold[::2], fold[1::2])
    sizes = [TRUTH[fold == each].mean() for each in range(5)]
    assert np.ptp(sizes) < 0.12


def test_an_identifier_that_leaks_within_patients_does_not_help() -> None:
    """Labels that belong to patients, and a column that names them: rows across folds would tell, patients do not."""
    rng = np.random.default_rng(3)
    patient = np.repeat(np.arange(100), 5)
    truth = (rng.random(100) < 0.4)[patient]
    names = np.array([f"p{each}" for each in patient])
    by_row = baselines(truth, np.arange(500), {"name": names})[0].auroc.value
    by_patient = baselines(truth, np.arange(500), {"name": names}, patient=patient)[0].auroc.value
    assert by_row is not None
    assert by_patient is not None
    assert by_row > 0.95
    assert by_patient < 0.6


def test_missing_values_are_a_category() -> None:
    age = np.where(TRUTH & (RNG.random(1400) < 0.8), np.nan, 50.0)  # missing tells all
    found = baselines(TRUTH, SCORE, {"age": age}, patient=PATIENT)[0]
    assert found.auroc.value is not None
    assert found.auroc.value > 0.85
    sex = np.array([None if np.isnan(each) else "F" for each in age], dtype=object)
    other = baselines(TRUTH, SCORE, {"sex": sex}, patient=PATIENT)[0]
    assert other.auroc.value == pytest.approx(found.auroc.value)


def test_degenerate() -> None:
    assert baselines(np.zeros(20), np.arange(20), {"age": np.arange(20.0)})[0].auroc.state is State.NOT_ESTIMABLE
    lone = baselines(np.arange(20) == 3, np.arange(20), {"age": np.arange(20.0)})[0]
    assert (lone.auroc.state, lone.score_minus_baseline) == (State.NOT_ESTIMABLE, None)
    constant = baselines(np.arange(200) % 2, np.arange(200), {"sex": ["F"] * 200})[0]
    assert constant.auroc.value == 0.5
    assert baselines([], [], {"age": []})[0].auroc.state is State.NOT_ESTIMABLE
    with pytest.raises(InvalidInput, match="expected a column"):
        baselines([0, 1], [0, 1], {})
    with pytest.raises(InvalidInput, match="expected 2 rows in sex"):
        baselines([0, 1], [0, 1], {"sex": ["F"]})
