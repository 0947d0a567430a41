"""VOI windows: the laws that any window keeps, and the standard's formulas value by value."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nearcase.intake.windows import Window, WindowFunction, apply_window

CENTERS = st.floats(-1e6, 1e6)
FUNCTIONS = st.sampled_from(WindowFunction)
VALUES = st.lists(st.floats(-1e9, 1e9), min_size=2, max_size=30)


@st.composite
def windows(draw: st.DrawFn) -> Window:
    function = draw(FUNCTIONS)
    smallest = 1.0 if function is WindowFunction.LINEAR else 1e-300
    return Window(draw(CENTERS), draw(st.floats(smallest, 1e7)), function)


@given(windows(), VALUES)
def test_any_valid_window_is_monotone_and_in_range(window: Window, values: list[float]) -> None:
    assert window.is_valid
    share = apply_window(np.sort(np.array(values)), window)
    assert np.all(np.diff(share) >= 0)
    assert share.min() >= 0
    assert share.max() <= 1


@given(windows())
def test_far_below_is_black_and_far_above_is_white(window: Window) -> None:
    ends = window.center + np.array([-1.0, 1.0]) * (400.0 * window.width + 1.0)
    np.testing.assert_allclose(apply_window(ends, window), [0, 1], atol=1e-6)


@given(st.floats(-5000, 5000), st.integers(-2000, 2000), st.integers(1, 5000))
def test_linear_is_the_pseudo_code_of_c_11_2_1_2_1(x: float, c: int, w: int) -> None:
    if x <= c - 0.5 - (w - 1) / 2:
        expected = 0.0
    elif x > c - 0.5 + (w - 1) / 2:
        expected = 1.0
    else:
        expected = (x - (c - 0.5)) / (w - 1) + 0.5
    assert apply_window(np.array([x]), Window(c, w))[0] == pytest.approx(expected, abs=1e-12)


@given(st.floats(-5000, 5000), st.integers(-2000, 2000), st.floats(0.01, 5000))
def test_linear_exact_is_the_pseudo_code_of_c_11_2_1_3_2(x: float, c: int, w: float) -> None:
    expected = 0.0 if x <= c - w / 2 else 1.0 if x > c + w / 2 else (x - c) / w + 0.5
    share = apply_window(np.array([x]), Window(c, w, WindowFunction.LINEAR_EXACT))[0]
    assert share == pytest.approx(expected, abs=1e-9)


@given(st.floats(-5000, 5000), st.integers(-2000, 2000), st.floats(10, 5000))
def test_sigmoid_is_the_formula_of_c_11_2_1_3_1(x: float, c: int, w: float) -> None:
    share = apply_window(np.array([x]), Window(c, w, WindowFunction.SIGMOID))[0]
    exponent = -4 * (x - c) / w
    assert share == pytest.approx(1 / (1 + math.exp(exponent)) if exponent < 700 else 0.0, abs=1e-12)


@pytest.mark.parametrize(
    ("center", "width", "function"),
    [
        (40, 0, WindowFunction.LINEAR),
        (40, 0.5, WindowFunction.LINEAR),
        (40, -1, WindowFunction.LINEAR_EXACT),
        (40, 0, WindowFunction.SIGMOID),
        (math.nan, 400, WindowFunction.LINEAR),
        (40, math.inf, WindowFunction.SIGMOID),
    ],
)
def test_windows_that_the_standard_does_not_define(center: float, width: float, function: WindowFunction) -> None:
    assert not Window(center, width, function).is_valid
