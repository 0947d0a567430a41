from __future__ import annotations

import numpy as np
import pytest

from nearcase_eval.ages import ages_of


@pytest.mark.parametrize(
    ("text", "years"),
    [
        ("045Y", 45.0),
        ("006M", 0.5),
        ("026W", 26 * 7 / 365.25),
        ("010D", 10 / 365.25),
        ("45", 45.0),
        (" 45.5 ", 45.5),
        (45, 45.0),
        (np.int64(7), 7.0),
        ("000Y", 0.0),
        ("120", 120.0),
        ("090Y", 90.0),
        ("45y", 45.0),
    ],
)
def test_ages_that_can_be_read(text: object, years: float) -> None:
    found = ages_of(np.array([text], dtype=object))
    assert found.years == pytest.approx([years])
    assert not found.open_ended.any()
    assert found.notes == ()


@pytest.mark.parametrize("text", ["90+", ">=90", ">90", "> 90", "090Y+"])
def test_capped_ages_are_lower_bounds(text: str) -> None:
    found = ages_of([text])
    assert found.years.tolist() == [90.0]
    assert found.open_ended.tolist() == [True]
    assert found.notes == ("1 ages are capped",)


def test_what_is_no_age_is_missing_and_counted() -> None:
    column = np.array(
        [155, "411Y", -3, "-1", 999, None, "", "nan", float("nan"), "old", "4 5", "<40", "60-70", 45], dtype=object
    )
    found = ages_of(column)
    assert np.flatnonzero(np.isfinite(found.years)).tolist() == [13]
    assert (found.impossible, found.unstated, found.unreadable) == (5, 4, 4)
    assert len(found.notes) == 3


def test_numbers_with_nan_and_no_rows() -> None:
    assert ages_of([40.0, np.nan]).unstated == 1
    assert ages_of([]).years.shape == (0,)


def test_infinite_and_hexadecimal_are_not_read() -> None:
    assert ages_of(["inf", "0x20", "1e2"]).unreadable == 3
