"""Ids that callers know find what the library knows them as; with de-identification off nothing changes."""

from __future__ import annotations

import secrets
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nearcase.errors import InvalidInput
from nearcase.index.filters import And, Equals, Filter, In, Not, Or, Range, matches
from nearcase.intake.deidentify import Pseudonyms
from nearcase.retrieve.annotations import Annotations, annotate
from nearcase.retrieve.cases import case_id_of, patient_key, to_payload
from nearcase.serve.privacy import Privacy, open_privacy
from nearcase.settings import Settings
from nearcase.types import Case, CaseFacts

ON, OFF = Privacy(Pseudonyms(bytes(range(32)))), Privacy()
few = st.sampled_from(["", "1", "2", "1|2", "|"])
facts = st.builds(
    CaseFacts,
    patient_id=few,
    patient_id_issuer=few,
    study_uid=few,
    series_uid=few,
    instance_uid=few,
    modality=st.sampled_from(["CT", "MR"]),
)


def to_case(stated: CaseFacts) -> Case:
    digest = "ab" * 32
    return Case(case_id_of(stated, digest, 1), stated, labels={"mass": "1"}, content_sha256=digest)


def conditions() -> st.SearchStrategy[Filter]:
    names = st.sampled_from(["study_uid", "series_uid", "instance_uid", "patient_key", "content_sha256", "modality"])
    values = st.sampled_from(["1", "2", "1|2", "|1", "2|1", "1|1|2", "||", "CT", "ab" * 32])
    leaves = st.one_of(
        st.builds(Equals, names, values),
        st.builds(In, names, st.lists(values, min_size=1, max_size=3).map(tuple)),
        st.just(Equals("labels", "mass=1")),
        st.just(Range("age_years", at_least=40)),
    )

    def grown(part: st.SearchStrategy[Filter]) -> st.SearchStrategy[Filter]:
        parts = st.lists(part, min_size=1, max_size=3).map(tuple)
        return st.one_of(part.map(Not), parts.map(And), parts.map(Or))

    return st.recursive(leaves, grown, max_leaves=6)


@given(facts, conditions())
def test_a_filter_finds_in_the_library_what_it_finds_in_the_world(stated: CaseFacts, where: Filter) -> None:
    case = to_case(stated)
    assert matches(ON.where(where), to_payload(ON.case(case))) == matches(where, to_payload(case))
    assert OFF.where(where) == where


@given(facts)
def test_pseudonyms_find_their_cases_too(stated: CaseFacts) -> None:
    stored = ON.case(to_case(stated))
    payload = to_payload(stored)
    for field in ("study_uid", "series_uid", "instance_uid", "patient_key", "content_sha256", "case_id"):
        if field in payload:
            assert matches(ON.where(Equals(field, str(payload[field]))), payload)
    if stated.patient_id:
        assert matches(ON.patient(stored.facts.patient_id, ""), payload)


@given(facts, few.filter(bool), few)
def test_a_patient_is_found_by_id_and_issuer_and_no_other_is(stated: CaseFacts, patient: str, issuer: str) -> None:
    is_theirs = (stated.patient_id, stated.patient_id_issuer) == (patient, issuer)
    assert matches(ON.patient(patient, issuer), to_payload(ON.case(to_case(stated)))) == is_theirs
    as_stated = patient_key(stated.patient_id, stated.patient_id_issuer) == patient_key(patient, issuer)
    assert matches(OFF.patient(patient, issuer), to_payload(to_case(stated))) == as_stated


def test_off_nothing_changes() -> None:
    case = to_case(CaseFacts(patient_id="P", study_description="words"))
    given = Annotations({}, CaseFacts(sex="F"))
    assert (OFF.case(case, given), OFF.digest("d"), OFF.given(case, given)) == (case, "d", given)
    assert (OFF.check_value, OFF.is_on) == ("", False)


def as_stated(stated: CaseFacts) -> Case:
    return Case("00000000-0000-4000-8000-000000000000", stated, content_sha256="ab" * 32)


@given(facts, facts, st.sampled_from(["", "20190613"]), st.sampled_from(["", "20200101"]))
def test_file_and_annotations_together_say_what_they_say_in_the_world(
    stated: CaseFacts, said: CaseFacts, stated_date: str, said_date: str
) -> None:
    case = as_stated(replace(stated, study_date=stated_date, modality=""))
    given_facts = replace(said, study_date=said_date, study_description="words")
    annotations = Annotations({"mass": "1"}, given_facts, "site A")
    stored = annotate(ON.case(case, annotations), ON.given(case, annotations))
    whole = annotate(case, annotations)
    assert ON.pseudonyms is not None
    assert stored.facts == ON.pseudonyms.facts(whole.facts)
    assert (stored.labels, stored.source) == ({"mass": "1"}, "site A")
    if whole.facts.patient_id:
        found = ON.patient(whole.facts.patient_id, whole.facts.patient_id_issuer)
        assert matches(found, to_payload(stored))


def test_what_the_settings_ask_for(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_bytes(secrets.token_bytes(32))
    key.chmod(0o600)
    strict = open_privacy(Settings(data=tmp_path / "data", deidentify=True, pseudonym_key=key))
    assert strict.is_on
    assert (strict.adding.refuses, strict.adding.masks, strict.adding.takes_plain) == (True, False, False)
    assert (strict.asking.refuses, strict.asking.masks, strict.asking.takes_plain) == (False, False, True)
    masking = open_privacy(
        Settings(data=tmp_path / "data", deidentify=True, pseudonym_key=key, burned_in="mask", trust_plain_images=True)
    )
    assert (masking.adding.refuses, masking.adding.masks, masking.adding.takes_plain) == (True, True, True)
    assert (masking.asking.refuses, masking.asking.masks) == (False, True)
    assert open_privacy(Settings()) == Privacy()


@pytest.mark.parametrize("place", ["data/key", "data/library/key", "data/../data/key"])
def test_a_key_that_travels_with_the_library_is_refused(tmp_path: Path, place: str) -> None:
    (tmp_path / "data" / "library").mkdir(parents=True)
    key = tmp_path / place
    key.write_bytes(secrets.token_bytes(32))
    key.chmod(0o600)
    with pytest.raises(InvalidInput, match="outside the data folder"):
        open_privacy(Settings(data=tmp_path / "data", deidentify=True, pseudonym_key=key))
