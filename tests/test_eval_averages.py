from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from nearcase.errors import InvalidInput
from nearcase_eval.auroc import auroc
from nearcase_eval.averages import averages
from nearcase_eval.estimate import State

RNG = np.random.default_rng(6)
PATIENT = np.repeat(np.arange(150), 2)
EFFECT = RNG.normal(size=150)[PATIENT]
TRUTH = RNG.random((14, 300)) < 0.25
SCORE = EFFECT + RNG.normal(size=(14, 300)) + TRUTH
LABELS = {f"label {index}": (TRUTH[index], SCORE[index]) for index in range(14)}


def test_fourteen_labels_are_scikit_learns_averages() -> None:
    found = averages(LABELS, patient=PATIENT)
    assert found.macro.value == pytest.approx(roc_auc_score(TRUTH.T, SCORE.T, average="macro"), abs=1e-12)
    assert found.micro.value == pytest.approx(roc_auc_score(TRUTH.T, SCORE.T, average="micro"), abs=1e-12)
    assert (found.labels, found.dropped) == (tuple(LABELS), ())


def test_macro_error_is_the_patient_bootstraps() -> None:
    found = averages(LABELS, patient=PATIENT)
    drawn = []
    for _ in range(400):
        rows = (2 * RNG.integers(150, size=150)[:, None] + [0, 1]).ravel()
        drawn.append(np.mean([roc_auc_score(TRUTH[label][rows], SCORE[label][rows]) for label in range(3)]))
    three = averages({name: LABELS[name] for name in list(LABELS)[:3]}, patient=PATIENT)
    assert three.macro.se == pytest.approx(float(np.std(drawn)), rel=0.12)
    assert found.macro.se is not None
    assert found.macro.se < (three.macro.se or 0.0)


def test_one_label_is_itself() -> None:
    truth, score = LABELS["label 0"]
    found = averages({"only": (truth, score)}, patient=PATIENT)
    alone = auroc(truth, score, patient=PATIENT)
    for each in (found.macro, found.micro):
        assert (each.value, each.low, each.high) == pytest.approx((alone.value, alone.low, alone.high))


def test_labels_with_one_class_are_dropped_and_listed() -> None:
    found = averages(LABELS | {"never": (np.zeros(300), SCORE[0])}, patient=PATIENT)
    assert found.dropped == ("never",)
    assert found.macro.value == averages(LABELS, patient=PATIENT).macro.value
    alone = averages({"never": (np.zeros(3), np.arange(3))})
    assert alone.macro.state is State.NOT_ESTIMABLE


def test_refuses_no_labels_and_other_lengths() -> None:
    with pytest.raises(InvalidInput, match="at least one label"):
        averages({})
    with pytest.raises(InvalidInput, match="expected 2 rows"):
        averages({"a": ([0, 1], [0, 1]), "b": ([0, 1, 1], [0, 1, 1])})
