from __future__ import annotations

import numpy as np
import pytest

from nearcase.errors import InvalidInput
from nearcase_eval.benefit import net_benefit
from nearcase_eval.bootstrap import patient_weights
from nearcase_eval.estimate import State

TRUTH = np.array([1, 1, 0, 0, 0, 1, 0, 0, 0, 0])
RISK = np.array([0.9, 0.4, 0.8, 0.3, 0.2, 0.6, 0.1, 0.05, 0.25, 0.0])


def test_by_hand() -> None:
    found = net_benefit(TRUTH, RISK, [0.5, 0.2])
    assert found[0].model.value == pytest.approx(2 / 10 - 1 / 10 * 1.0)
    assert found[0].treat_all == pytest.approx(0.3 - 0.7)
    assert found[1].model.value == pytest.approx(3 / 10 - 4 / 10 * 0.25)


def test_the_samples_own_prevalence_gives_the_same() -> None:
    own, stated = net_benefit(TRUTH, RISK, [0.3])[0], net_benefit(TRUTH, RISK, [0.3], prevalence=0.3)[0]
    assert stated.model.value == pytest.approx(own.model.value)
    assert stated.treat_all == pytest.approx(own.treat_all)


def test_calling_all_is_treat_all() -> None:
    found = net_benefit(TRUTH, np.ones(10), [0.1])[0]
    assert found.model.value == pytest.approx(found.treat_all)


def test_error_is_the_patient_bootstraps() -> None:
    rng = np.random.default_rng(1)
    patient = np.repeat(np.arange(200), 3)
    risk = rng.random(200)[patient]
    truth = rng.random(600) < risk
    found = net_benefit(truth, risk, [0.25], patient=patient)[0].model
    worth = np.where(risk >= 0.25, np.where(truth, 1.0, -1 / 3), 0.0)
    weights = next(patient_weights(200, 3000, seed=1, batch=3000)).astype(float)
    drawn = (np.bincount(patient, weights=worth) @ weights) / (np.bincount(patient) @ weights)
    assert found.se == pytest.approx(drawn.std(), rel=0.05)


def test_degenerate() -> None:
    assert net_benefit([], [], [0.5])[0].model.state is State.NOT_ESTIMABLE
    assert net_benefit([0, 0], [0.1, 0.9], [0.5], prevalence=0.2)[0].model.state is State.NOT_ESTIMABLE
    with pytest.raises(InvalidInput, match=r"inside 0\.\.1"):
        net_benefit(TRUTH, RISK, [1.0])
    with pytest.raises(InvalidInput, match="probabilities"):
        net_benefit(TRUTH, RISK * 3, [0.5])
