"""The meaning of filters, and what is refused before an engine sees it."""

from __future__ import annotations

import pytest
from hypothesis import given
from strategies import ORDERED, filters, payloads

from nearcase.errors import InvalidInput
from nearcase.index.base import Payload
from nearcase.index.fields import FIELDS
from nearcase.index.filters import MAX_DEPTH, And, Equals, Filter, In, Not, Or, Range, check, matches

WOMAN: Payload = {"sex": "F", "age_years": 40, "labels": ["melanoma=1", "site=back"], "modality": None}


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (Equals("sex", "F"), True),
        (Equals("sex", "f"), False),
        (Equals("age_years", 40.0), True),
        (Equals("labels", "site=back"), True),
        (Equals("labels", "site=leg"), False),
        (Equals("modality", "CT"), False),
        (Not(Equals("modality", "CT")), True),
        (Not(Equals("body_part", "CHEST")), True),
        (In("labels", ("melanoma=0", "melanoma=1")), True),
        (Range("age_years", at_least=40), True),
        (Range("age_years", above=40), False),
        (Range("age_years", above=39.5, below=40.5), True),
        (Range("age_years", at_least=30, at_most=39), False),
        (Range("study_date", at_least=20150101), False),
        (Not(Range("study_date", at_least=20150101)), True),
        (Or((Equals("sex", "M"), Equals("age_years", 40))), True),
        (And((Equals("sex", "F"), Equals("age_years", 41))), False),
    ],
)
def test_means_what_it_says(where: Filter, expected: bool) -> None:
    check(where)
    assert matches(where, WOMAN) is expected


@given(filters(), payloads())
def test_not_is_the_opposite_even_where_a_field_is_missing(where: Filter, payload: Payload) -> None:
    check(where)
    assert matches(Not(where), payload) is not matches(where, payload)


@given(filters(), filters(), payloads())
def test_de_morgan(one: Filter, other: Filter, payload: Payload) -> None:
    assert matches(Not(And((one, other))), payload) is matches(Or((Not(one), Not(other))), payload)


@given(filters(), payloads())
def test_a_list_is_the_or_of_its_values_and_a_range_the_and_of_its_bounds(where: Filter, payload: Payload) -> None:
    assert matches(_spelled_out(where), payload) is matches(where, payload)


def _spelled_out(where: Filter) -> Filter:
    match where:
        case In(field, values):
            return Or(tuple(Equals(field, value) for value in values))
        case Range(field):
            bounds = {name: getattr(where, name) for name in ("at_least", "above", "at_most", "below")}
            return And(tuple(Range(field, **{name: value}) for name, value in bounds.items() if value is not None))
        case And(parts):
            return And(tuple(_spelled_out(part) for part in parts))
        case Or(parts):
            return Or(tuple(_spelled_out(part) for part in parts))
        case Not(part):
            return Not(_spelled_out(part))
    return where


@pytest.mark.parametrize(
    "where",
    [
        Equals("shoe_size", "40"),
        In("shoe_size", ("40",)),
        Range("shoe_size", at_least=40),
        Equals("modality", 5),
        Equals("modality", "\ud800"),
        Equals("age_years", "40"),
        Equals("age_years", True),
        Equals("age_years", float("nan")),
        Equals("age_years", 2**53 + 1),
        Range("age_years", below=float("inf")),
        Range("age_years"),
        Range("modality", at_least=1),
        Equals("study_date", 20150301.0),
        Range("study_date", at_least=20150301.5),
        Equals("study_date", 2**60),
        In("sex", ()),
        In("sex", ("F", 1)),
        And(()),
        Or((Equals("sex", "F"), Or(()))),
        Not(And(())),
    ],
)
def test_refuses_what_no_engine_could_answer(where: Filter) -> None:
    with pytest.raises(InvalidInput) as refusal:
        check(where)
    assert "\n" not in str(refusal.value)


def test_an_undeclared_field_is_answered_with_the_declared_ones() -> None:
    with pytest.raises(InvalidInput) as refusal:
        check(Equals("patient_name", "Doe^John"))
    assert all(name in str(refusal.value) for name in FIELDS)
    assert "Doe" not in str(refusal.value)


def test_refusals_hold_no_value() -> None:
    for field in ORDERED:
        with pytest.raises(InvalidInput) as refusal:
            check(Equals(field, "Doe^John"))
        assert "Doe" not in str(refusal.value)


def test_a_bottomless_filter_is_refused_before_the_stack_ends() -> None:
    where: Filter = Equals("sex", "F")
    for _ in range(MAX_DEPTH - 1):
        where = Not(where)
    check(where)
    for _ in range(50_000):
        where = Not(where)
    with pytest.raises(InvalidInput, match="levels deep"):
        check(where)
    while isinstance(where, Not):  # taken apart from outside: its own destruction would recurse as deep
        where = where.part
