from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import false_discovery_control

from nearcase.errors import InvalidInput
from nearcase_eval.multiplicity import adjust, benjamini_hochberg, holm

P_VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=12).map(np.array)


def test_holm_by_hand() -> None:
    assert holm(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])


@given(P_VALUES)
def test_benjamini_hochberg_is_scipys(p: np.ndarray[tuple[int], np.dtype[np.float64]]) -> None:
    assert benjamini_hochberg(p) == pytest.approx(false_discovery_control(p), abs=1e-12)


@given(P_VALUES)
def test_adjusting_never_helps_and_keeps_the_order(p: np.ndarray[tuple[int], np.dtype[np.float64]]) -> None:
    for adjusted in (holm(p), benjamini_hochberg(p)):
        assert np.all(adjusted >= p - 1e-15)
        assert np.all(np.diff(adjusted[np.argsort(p, kind="stable")]) >= 0)
        assert adjusted.max() <= 1.0


def test_tests_that_were_not_made_are_not_in_the_family() -> None:
    found = adjust({"a": 0.01, "b": None, "c": 0.2})
    assert (found.family, found.adjusted) == (2, {"a": 0.02, "b": None, "c": 0.2})
    assert adjust({}).family == 0


def test_refuses_what_is_no_probability() -> None:
    with pytest.raises(InvalidInput, match="1 outside"):
        adjust({"a": 1.5})
