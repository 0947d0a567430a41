"""What a record keeps of a question: filters that name nobody, and never what names a person."""

from __future__ import annotations

import pytest
from hypothesis import given
from strategies import filters

from nearcase.index.fields import FIELDS
from nearcase.index.filter_text import parse
from nearcase.index.filters import Filter, Not, Or, fields_of, matches
from nearcase.serve.deciding import Question
from nearcase.serve.inquiries import inquiry_of
from nearcase.v1.decision_pb2 import DecideOptions, DecideRequest

NAMING = {"case_id", "patient_key", "study_uid", "series_uid", "instance_uid", "content_sha256", "study_date"}
FREE_TEXT = {"labels"}
UNDECIDED = {"added_at_s", "changed_at_s", "tenant"}  # days may lead to one person; a tenant is no word of filters


def is_kept(text: str) -> bool:
    request = DecideRequest(image=b"x", options=DecideOptions(filter=text))
    found = inquiry_of(request, Question(), parse(text) if text else None)
    assert found.where == (text if found.is_where_kept else "")
    return found.is_where_kept


@pytest.mark.parametrize("field", sorted(NAMING))
def test_a_filter_that_could_name_a_patient_is_not_kept(field: str) -> None:
    value = "2020-02-29" if field == "study_date" else "X"
    for text in (f"{field} = {value}", f"modality = CT and not ({field} != {value} or sex = F)"):
        assert not is_kept(text)


def test_the_free_text_of_a_labels_value_is_not_kept() -> None:
    assert not is_kept('label.report = "DOE JANE 1961" and modality = CT')
    assert not is_kept("label.mass in (1, 2)")


def test_a_filter_of_many_people_is_kept() -> None:
    assert is_kept("")
    assert is_kept("modality = CT and (age >= 40 or sex in (F, O)) and not body_part = CHEST")


def test_a_field_that_is_declared_later_is_not_kept_until_somebody_decides() -> None:
    from nearcase.serve import inquiries

    assert set(FIELDS) == NAMING | FREE_TEXT | UNDECIDED | set(inquiries._NAMELESS)


@given(filters())
def test_a_filter_asks_about_no_field_but_those_named(where: Filter) -> None:
    names = fields_of(where)
    assert names <= set(FIELDS)
    assert fields_of(Or((where, Not(where)))) == names
    others = {field: "x" for field in FIELDS if field not in names}
    assert matches(where, others) == matches(where, {})
