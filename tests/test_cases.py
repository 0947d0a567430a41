"""Case <-> payload, and which cases are of the query's own origin."""

from __future__ import annotations

import datetime
import uuid
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nearcase.exchange.rows import check_stored
from nearcase.index.filters import matches
from nearcase.retrieve.cases import case_id_of, other_origin, patient_key, to_case, to_payload
from nearcase.transfers import StoredCase
from nearcase.types import Case, CaseFacts

words = st.text(st.characters(blacklist_categories=["Cs", "Cc"]), max_size=12)
ages = st.none() | st.floats(0, 120)
dates = st.just("") | st.dates().map(lambda day: day.isoformat().replace("-", ""))  # from the year 1 on
facts = st.builds(
    CaseFacts,
    **dict.fromkeys(("patient_id", "patient_id_issuer", "study_uid", "modality", "body_part", "sex"), words),
    age_years=ages,
    study_date=dates,
)  # fmt: skip
labels = st.dictionaries(st.from_regex(r"[A-Za-z_][A-Za-z0-9_.-]{0,8}", fullmatch=True), words.filter(bool), max_size=4)
cases = st.builds(
    Case,
    case_id=st.uuids().map(str),
    facts=facts,
    labels=labels,
    source=words,
    frame_number=st.integers(1, 500),
    frame_count=st.integers(1, 500),
    content_sha256=st.just("ab" * 32),
    added_at_s=st.floats(0, 4e9),
    thumbnail_jpeg=st.binary(max_size=20),
)


@given(cases)
def test_a_case_survives_its_payload(case: Case) -> None:
    assert to_case(case.case_id, to_payload(case)) == case


@given(st.dates(max_value=datetime.date(1000, 1, 1)))
def test_an_own_case_of_any_year_may_enter_a_library(day: datetime.date) -> None:
    case = Case(str(uuid.UUID(int=1)), CaseFacts(study_date=day.isoformat().replace("-", "")), content_sha256="ab" * 32)
    check_stored(StoredCase(to_case(case.case_id, to_payload(case)), np.array([0, 1], np.float32)), 2, 0.0)


def test_the_id_is_the_images_own() -> None:
    instance = CaseFacts(instance_uid="1.2.3")
    assert case_id_of(instance, "aa", 1) == case_id_of(instance, "bb", 1) != case_id_of(instance, "aa", 2)
    assert (
        case_id_of(CaseFacts(), "aa", 1)
        == case_id_of(CaseFacts(patient_id="x"), "aa", 1)
        != case_id_of(CaseFacts(), "bb", 1)
    )


def test_an_id_means_nothing_without_its_issuer() -> None:
    assert patient_key("1", "A") != patient_key("1", "B")
    assert patient_key("", "A") == ""


QUERY = Case("q", CaseFacts(patient_id="1", patient_id_issuer="A", study_uid="s", series_uid="e"), content_sha256="aa")
OTHER = Case("o", CaseFacts(patient_id="2", patient_id_issuer="A", study_uid="t", series_uid="f"), content_sha256="bb")


def test_own_origin_is_the_patient_the_study_the_series_and_copies() -> None:
    other = other_origin([QUERY], with_patient=True)
    assert other is not None
    assert matches(other, to_payload(OTHER))
    same = {
        "patient": replace(OTHER, facts=replace(OTHER.facts, patient_id="1")),
        "study": replace(OTHER, facts=replace(OTHER.facts, study_uid="s")),
        "series": replace(OTHER, facts=replace(OTHER.facts, series_uid="e")),
        "copy": replace(OTHER, content_sha256="aa"),
    }
    assert {name: matches(other, to_payload(case)) for name, case in same.items()} == dict.fromkeys(same, False)
    only_study = other_origin([QUERY], with_patient=False)
    assert only_study is not None
    assert {name: matches(only_study, to_payload(case)) for name, case in same.items()} == {
        "patient": True,
        "study": False,
        "series": False,
        "copy": False,
    }


@pytest.mark.parametrize("asked", ["", "A", "B", "a|b"])
@pytest.mark.parametrize("stored", ["", "A", "B", "a|b"])
def test_an_id_without_its_issuer_may_be_that_of_any(asked: str, stored: str) -> None:
    query = Case("q", CaseFacts(patient_id="7|1", patient_id_issuer=asked))
    other = other_origin([query], with_patient=True)
    assert other is not None
    is_other = bool(asked and stored and asked != stored)
    case = Case("o", CaseFacts(patient_id="7|1", patient_id_issuer=stored))
    assert matches(other, to_payload(case)) is is_other
    assert matches(other, to_payload(Case("o", CaseFacts(patient_id="8", patient_id_issuer=stored))))


def test_two_unnamed_patients_are_not_one() -> None:
    assert other_origin([Case("q", CaseFacts())], with_patient=True) is None
    unnamed = Case("q", CaseFacts(study_uid="s"))
    other = other_origin([unnamed], with_patient=True)
    assert other is not None
    assert matches(other, to_payload(Case("o", CaseFacts(study_uid="t"))))
