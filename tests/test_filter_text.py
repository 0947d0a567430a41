"""The filter language: what people write means what they meant, and what they can not have meant is refused."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from strategies import filters, payloads

from nearcase.errors import InvalidInput
from nearcase.index.base import Payload
from nearcase.index.filter_text import parse, to_text
from nearcase.index.filters import And, Equals, Filter, In, Not, Or, Range, check, matches

CT, MR = Equals("modality", "CT"), Equals("modality", "MR")
WOMAN = Equals("sex", "F")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("modality = CT", CT),
        ("Modality=ct", CT),
        (" modality\t=\n'CT' ", CT),
        ("sex != F", Not(WOMAN)),
        ("not sex = f", Not(WOMAN)),
        ("NOT NOT sex = F", Not(Not(WOMAN))),
        ("sex in (F, 'O')", In("sex", ("F", "O"))),
        ("sex NOT IN (F)", Not(In("sex", ("F",)))),
        ("modality = CT or modality = MR and sex = F", Or((CT, And((MR, WOMAN))))),
        ("(modality = CT or modality = MR) AND sex = F", And((Or((CT, MR)), WOMAN))),
        ("not modality = CT and sex = F", And((Not(CT), WOMAN))),
        ("not (modality = CT and sex = F)", Not(And((CT, WOMAN)))),
        ("age >= 40", Range("age_years", at_least=40.0)),
        ("age>.5", Range("age_years", above=0.5)),
        ("age_years < 4e1", Range("age_years", below=40.0)),
        ("age = 40", Equals("age_years", 40.0)),
        ("date <= 2015-03-01", Range("study_date", at_most=20150301)),
        ("study_date = 20150301", Equals("study_date", 20150301)),
        ("label.melanoma = 1", Equals("labels", "melanoma=1")),
        ("label.Melanoma != 'not sure'", Not(Equals("labels", "Melanoma=not sure"))),
        ("label.grade in (1, 2)", In("labels", ("grade=1", "grade=2"))),
        ("labels = 'grade=1'", Equals("labels", "grade=1")),
        ("body_part = chest", Equals("body_part", "chest")),
        ("view = 'and'", Equals("view", "and")),
        (r"""device_model = "say \"a\\b\" 'x'" """, Equals("device_model", "say \"a\\b\" 'x'")),
        ("source = ''", Equals("source", "")),
        ("site = 'Ward 3'", Equals("source", "Ward 3")),
        ("flags not in (excluded, 'no-consent')", Not(In("flags", ("excluded", "no-consent")))),
        ("added_at_s >= 1.7e9", Range("added_at_s", at_least=1.7e9)),
        ("series_uid = 1.2.840.10008", Equals("series_uid", "1.2.840.10008")),
        ("patient_key = 'HOSP|0815'", Equals("patient_key", "HOSP|0815")),
    ],
)
def test_reads(text: str, expected: Filter) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "column 1: expected a field"),
        ("modalty = CT", r"column 1: expected a field \(perhaps modality\)"),
        ("modality CT", "column 10: expected one of =, !=, in, not in after modality, got a word"),
        ("sex = F and modality > CT", "column 22: expected one of =, !=, in, not in after modality, got '>'"),
        ("modality = ", "column 12: expected a value .*, got the end"),
        ("modality = and", "column 12: expected a value .*, got 'and'"),
        ("modality = CT sex = F", "column 15: expected 'and', 'or' or the end, got a word"),
        ("(modality = CT", r"column 15: expected '\)', got the end"),
        ("modality = CT)", r"column 14: expected 'and', 'or' or the end, got '\)'"),
        ("sex in F", r"column 8: expected '\(', got a word"),
        ("sex in ()", r"column 9: expected a value .*, got '\)'"),
        ("sex in (F,)", r"column 11: expected a value .*, got '\)'"),
        ("sex not F", "column 9: expected 'in', got a word"),
        ("sex = 'F", "column 7: .* closed quotes"),
        ("sex = F ; drop", "column 9: expected 'and'"),
        ("sex ! F", "column 5: expected a word, a sign"),
        ("age > old", "column 7: expected a number"),
        ("age = nan", "column 7: expected a number"),
        ("age = 1e999", "column 7: expected a number"),
        ("age = 1_000", "column 7: expected a number"),
        ("age = ٤٠", "column 7: expected a number"),
        ("date > 2015-02-30", "column 8: expected a day"),
        ("date > 2015", "column 8: expected a day"),
        ("label. = 1", "column 1: expected a field"),
        ("label.\ud800 = 1", "Expected a filter in Unicode"),
    ],
)
def test_refuses_and_says_where(text: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message) as refusal:
        parse(text)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "text", ["DOE^JOHN = 3", "sex = F DOE^JOHN", "age = DOE^JOHN", "date = 'DOE^JOHN'", "DOE^JOHN"]
)
def test_messages_repeat_no_value(text: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        parse(text)
    assert "DOE" not in str(refusal.value)


@pytest.mark.parametrize("text", ["(" * 4000, "not " * 1000, "(" * 40 + "sex = F" + ")" * 40, "sex = F " * 600])
def test_hostile_texts_are_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse(text)


def test_the_deepest_text_is_within_the_deepest_filter() -> None:
    text = "sex = F"
    for _ in range(32):
        text = f"sex = M or sex = O and ({text})"
    check(parse(text))


@given(st.text(max_size=60) | st.text("()=!<>,'\"\\ andortinsex19.-", max_size=40))
@example("\x00")
@example("sex = '\\")
@example("label.İ = 1")
@example("ſex = F")
def test_any_text_is_a_valid_filter_or_refused(text: str) -> None:
    try:
        where = parse(text)
    except InvalidInput:
        return
    check(where)
    assert parse(to_text(where)) == where


@given(filters(parsed=True))
def test_printing_and_reading_is_the_identity(where: Filter) -> None:
    assert parse(to_text(where)) == where


@given(filters(), payloads())
def test_what_programs_build_prints_as_text_that_matches_the_same(where: Filter, payload: Payload) -> None:
    assert matches(parse(to_text(where)), payload) is matches(where, payload)


def test_what_can_not_be_a_filter_can_not_be_printed() -> None:
    with pytest.raises(InvalidInput):
        to_text(And(()))


@pytest.mark.parametrize("text", ["tenant = a", "modality = CT or not TENANT in (a, b)", "Tenant != a"])
def test_whose_cases_they_are_is_not_the_callers_to_say(text: str) -> None:
    with pytest.raises(InvalidInput, match="expected a field") as refusal:
        parse(text)
    assert "tenant" not in str(refusal.value).lower()
