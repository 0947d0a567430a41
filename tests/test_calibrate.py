"""A calibration never falls, hits its knots, and moves with the prevalence as Bayes says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nearcase.decide.calibrate import Calibration, clip_of_votes
from nearcase.errors import InvalidInput

unit = st.floats(0, 1)
inside = st.floats(0.001, 0.999)
knots = st.lists(st.tuples(unit, unit), min_size=1, max_size=12, unique_by=lambda knot: knot[0]).map(
    lambda found: (tuple(sorted(knot[0] for knot in found)), tuple(sorted(knot[1] for knot in found)))
)
calibrations = st.one_of(
    st.builds(
        lambda both, prevalence, clip: Calibration("isotonic", prevalence, clip, *both),
        knots,
        inside,
        st.floats(1e-6, 0.4),
    ),
    st.builds(
        lambda slope, intercept, prevalence, clip: Calibration(
            "platt", prevalence, clip, slope=slope, intercept=intercept
        ),
        st.floats(0, 20),
        st.floats(-10, 10),
        inside,
        st.floats(1e-6, 0.4),
    ),
)


@given(calibrations, unit, unit, st.none() | inside)
def test_probability_never_falls_and_stays_inside(
    calibration: Calibration, one: float, other: float, prevalence: float | None
) -> None:
    low, high = (calibration.probability(score, prevalence) for score in sorted((one, other)))
    assert 0.0 <= low <= high + 1e-12
    assert high <= 1.0


@given(knots, unit)
def test_isotonic_is_linear_interpolation(both: tuple[tuple[float, ...], tuple[float, ...]], score: float) -> None:
    calibration = Calibration("isotonic", 0.5, 1e-9, *both)
    expected = np.interp(min(max(score, 1e-9), 1 - 1e-9), *both)
    assert calibration.probability(score) == pytest.approx(expected, abs=1e-9)


def test_platt_is_the_logistic_of_the_clipped_logit() -> None:
    calibration = Calibration("platt", 0.3, clip_of_votes(10), slope=2.0, intercept=-1.0)
    assert calibration.probability(0.0) == calibration.probability(0.05) > 0.0
    assert calibration.probability(1.0) == calibration.probability(0.95) < 1.0
    assert calibration.probability(0.5) == pytest.approx(1 / (1 + np.exp(1)))


@given(calibrations, unit)
def test_the_fitted_prevalence_moves_nothing(calibration: Calibration, score: float) -> None:
    assert calibration.probability(score, calibration.prevalence) == pytest.approx(calibration.probability(score))


def test_another_prevalence_is_bayes_rule() -> None:
    calibration = Calibration("isotonic", 0.5, 0.01, (0.0, 1.0), (0.0, 1.0))
    # at prevalence 1/2 a score of 0.8 has likelihood ratio 4; at 0.02 that is 4 x 0.02 / (4 x 0.02 + 0.98)
    assert calibration.probability(0.8, 0.02) == pytest.approx(0.08 / 1.06)


def test_votes_are_clipped_to_half_a_vote() -> None:
    assert clip_of_votes(10) == 0.05
    assert clip_of_votes(1) < 0.5


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "spline"},
        {"prevalence": 0.0},
        {"clip": 0.5},
        {"slope": -1.0},
        {"scores": (0.5, 0.5), "probabilities": (0.1, 0.2)},
        {"scores": (0.1, 0.5), "probabilities": (0.3, 0.2)},
        {"scores": (0.1,), "probabilities": (1.2,)},
        {"scores": (), "probabilities": ()},
    ],
)
def test_what_is_no_calibration_is_refused(wrong: dict[str, object]) -> None:
    given_ = {"kind": "isotonic", "prevalence": 0.5, "clip": 0.05, "scores": (0.5,), "probabilities": (0.5,)} | wrong
    with pytest.raises(InvalidInput):
        Calibration(**given_)  # type: ignore[arg-type]
