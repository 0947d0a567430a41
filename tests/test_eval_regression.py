from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

from nearcase.errors import InvalidInput
from nearcase_eval.bootstrap import bootstrap_metric
from nearcase_eval.estimate import State
from nearcase_eval.regression import errors

RNG = np.random.default_rng(3)
PATIENT = np.repeat(np.arange(120), 3)
AGE = RNG.uniform(10, 200, size=120)[PATIENT]
GUESS = AGE + 2.0 + RNG.normal(size=120)[PATIENT] * 6 + RNG.normal(size=360) * 3


def test_values_are_scikit_learns() -> None:
    found = errors(AGE, GUESS, patient=PATIENT)
    assert found.mean_absolute.value == pytest.approx(mean_absolute_error(AGE, GUESS))
    assert found.root_mean_square.value == pytest.approx(root_mean_squared_error(AGE, GUESS))
    assert found.r2.value == pytest.approx(r2_score(AGE, GUESS))
    assert found.bias.value == pytest.approx(np.mean(GUESS - AGE))


def test_standard_errors_are_the_patient_bootstraps() -> None:
    found = errors(AGE, GUESS, patient=PATIENT)
    for estimate, metric in (
        (found.mean_absolute, mean_absolute_error),
        (found.root_mean_square, root_mean_squared_error),
        (found.r2, r2_score),
    ):
        drawn = bootstrap_metric(metric, AGE, GUESS, patient=PATIENT, replicates=1000, seed=4)
        assert estimate.se == pytest.approx(drawn.se, rel=0.1)


def test_degenerate() -> None:
    assert errors([], []).mean_absolute.state is State.NOT_ESTIMABLE
    exact = errors([1.0, 2.0, 3.0], [1.0, 2.0, 3.0])
    assert (exact.root_mean_square.value, exact.mean_absolute.state) == (0.0, State.LOW_PRECISION)
    assert errors([5.0, 5.0], [4.0, 6.0]).r2.state is State.NOT_ESTIMABLE
    with pytest.raises(InvalidInput, match="finite"):
        errors([1.0, np.nan], [1.0, 2.0])
