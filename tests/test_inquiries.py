"""What a record keeps of a question: filters of words that many people share, and never what may name a person."""

from __future__ import annotations

import pytest

from nearcase.index.fields import FIELDS, FieldKind
from nearcase.index.filter_text import parse
from nearcase.serve.deciding import Question
from nearcase.serve.inquiries import inquiry_of
from nearcase.v1.decision_pb2 import DecideOptions, DecideRequest


def is_kept(text: str) -> bool:
    request = DecideRequest(image=b"x", options=DecideOptions(filter=text))
    found = inquiry_of(request, Question(), parse(text) if text else None)
    assert found.where == (text if found.is_where_kept else "")
    return found.is_where_kept


@pytest.mark.parametrize("field", sorted(set(FIELDS) - {"labels", "label_names", "tenant"}))
def test_free_text_and_dates_are_not_kept_whatever_the_field(field: str) -> None:
    """Of a field that is declared later too."""
    if field == "age_years":
        return
    value = "'Jane Doe'" if FIELDS[field] is FieldKind.KEYWORD else "20200229"
    for text in (
        f"{field} = {value}",
        f"{field} in ({value})",
        f"modality = CT and not ({field} != {value} or sex = F)",
    ):
        assert not is_kept(text)
    if FIELDS[field] is not FieldKind.KEYWORD:
        assert not is_kept(f"{field} >= {value}")


def test_names_and_values_of_labels_are_not_kept() -> None:
    assert not is_kept('label.report = "DOE JANE 1961" and modality = CT')
    assert not is_kept("label.mass in (1, 2)")
    assert not is_kept("label_names = 'Jane Doe'")


def test_one_name_among_words_that_many_share_is_not_kept() -> None:
    assert not is_kept("sex in (F, 'Jane Doe')")
    assert not is_kept("body_part = CHEST or modality = MG")


def test_a_filter_of_words_that_many_share_is_kept() -> None:
    assert is_kept("")
    assert is_kept("modality = CT and (age >= 40 or sex in (F, O)) and not view = MLO")
    assert is_kept("laterality = L and flags != excluded and age = 40")
