"""Pseudonyms: the same for the same key, different for all else, and nothing of what was stated in them."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import hmac
import uuid

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydicom.uid import UID

from nearcase.errors import InvalidInput
from nearcase.intake.deidentify import MAX_SHIFT_DAYS, MIN_KEY_BYTES, Pseudonyms, coarse_age
from nearcase.types import CaseFacts

KEY, OTHER = bytes(range(32)), bytes(range(1, 33))
OURS, THEIRS = Pseudonyms(KEY), Pseudonyms(OTHER)
words = st.text(min_size=1, max_size=20)
uids = st.from_regex(r"[0-9]{1,3}(\.[1-9][0-9]{0,8}){1,5}", fullmatch=True)
dates = st.dates(datetime.date(1920, 1, 1), datetime.date(2029, 12, 31)).map(lambda day: f"{day:%Y%m%d}")

STATED = CaseFacts(
    patient_id="MRN-4711",
    patient_id_issuer="ST-ELSEWHERE",
    study_uid="1.2.3.1",
    series_uid="1.2.3.2",
    instance_uid="1.2.3.3",
    sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
    modality="CT",
    body_part="CHEST",
    laterality="L",
    view="PA",
    age_years=45.7,
    sex="F",
    manufacturer="ACME",
    device_model="Ring 64",
    study_date="20190613",
    study_description="Jane's CT for Dr Who",
    series_description="requested by Dr Who",
)
KEPT = {"modality", "body_part", "laterality", "view", "sex", "manufacturer", "device_model", "sop_class_uid"}
DROPPED = {"patient_id_issuer", "study_description", "series_description"}
CHANGED = {"patient_id", "study_uid", "series_uid", "instance_uid", "age_years", "study_date"}


def test_every_fact_is_kept_changed_or_dropped_on_purpose() -> None:
    assert {field.name for field in dataclasses.fields(CaseFacts)} == KEPT | DROPPED | CHANGED
    stored = OURS.facts(STATED)
    for name in KEPT:
        assert getattr(stored, name) == getattr(STATED, name)
    for name in DROPPED:
        assert getattr(stored, name) == ""
    for name in CHANGED:
        assert getattr(stored, name) not in (getattr(STATED, name), "", None)


def test_what_is_not_stated_stays_so() -> None:
    assert OURS.facts(CaseFacts()) == CaseFacts()


def test_a_class_uid_that_is_not_of_the_standard_is_dropped() -> None:
    assert OURS.facts(CaseFacts(sop_class_uid="1.2.276.0.7230010.4711")).sop_class_uid == ""


def test_a_view_that_is_no_term_of_the_standard_is_dropped() -> None:
    assert OURS.facts(CaseFacts(view="MLO")).view == "MLO"
    assert OURS.facts(CaseFacts(view="MRS SMITH")).view == ""


def test_the_pseudonym_is_what_any_hmac_gives() -> None:
    expected = hmac.new(KEY, b'["sha256", "abc"]', hashlib.sha256).hexdigest()
    assert OURS.digest("abc") == expected


@pytest.mark.parametrize("size", [0, 1, MIN_KEY_BYTES - 1])
def test_a_short_key_is_refused(size: int) -> None:
    with pytest.raises(InvalidInput, match=f"{MIN_KEY_BYTES} bytes, got {size}"):
        Pseudonyms(KEY[:size])


def test_the_key_is_in_no_text_of_the_object() -> None:
    assert KEY.hex() not in repr(OURS) + OURS.check_value
    assert not hasattr(OURS, "__dict__")


@given(words, words)
def test_the_same_key_gives_the_same_and_another_key_another(identifier: str, issuer: str) -> None:
    again = Pseudonyms(KEY)
    for method in ("uid", "digest", "case_id"):
        assert getattr(OURS, method)(identifier) == getattr(again, method)(identifier)
        assert getattr(OURS, method)(identifier) != getattr(THEIRS, method)(identifier)
    assert OURS.patient(identifier, issuer) == again.patient(identifier, issuer)
    assert OURS.patient(identifier, issuer) != THEIRS.patient(identifier, issuer)
    assert OURS.check_value != THEIRS.check_value


@given(st.lists(st.tuples(words, st.text(max_size=20)), unique=True, max_size=20))
def test_two_patients_are_never_one(patients: list[tuple[str, str]]) -> None:
    assert len({OURS.patient(*patient) for patient in patients}) == len(patients)


def test_a_bar_or_a_letter_that_moves_makes_another_patient() -> None:
    moved = [("c", "a|b"), ("b|c", "a"), ("bc", "a"), ("c", "ab"), ('c", "d', "a"), ("abc", "")]
    assert len({OURS.patient(*patient) for patient in moved}) == len(moved)


@given(st.lists(uids, unique=True, max_size=20))
def test_uids_stay_valid_and_apart(stated: list[str]) -> None:
    stored = [OURS.uid(uid) for uid in stated]
    assert len(set(stored)) == len(stated)
    for uid in stored:
        assert UID(uid).is_valid
        assert len(uid) <= 64
        assert uuid.UUID(int=int(uid.removeprefix("2.25."))).variant == uuid.RFC_4122


@given(words)
def test_a_pseudonym_gets_a_pseudonym_like_any_other(identifier: str) -> None:
    once = OURS.uid(identifier)
    assert OURS.uid(once) != once


@given(words, st.lists(dates, min_size=2, max_size=5), uids)
def test_intervals_within_a_patient_are_kept_and_no_date_is(patient: str, stated: list[str], study: str) -> None:
    facts = [CaseFacts(patient_id=patient, study_uid=f"{study}.{n}", study_date=day) for n, day in enumerate(stated)]
    stored = [OURS.facts(each).study_date for each in facts]
    shifts = {to_day(new) - to_day(old) for old, new in zip(stated, stored, strict=True)}
    assert len(shifts) == 1
    assert 1 <= -shifts.pop().days <= MAX_SHIFT_DAYS


@given(uids, st.lists(dates, min_size=2, max_size=3))
def test_without_a_patient_the_study_has_one_shift(study: str, stated: list[str]) -> None:
    stored = [OURS.facts(CaseFacts(study_uid=study, study_date=day)).study_date for day in stated]
    assert to_day(stored[1]) - to_day(stored[0]) == to_day(stated[1]) - to_day(stated[0])
    assert stored[0] != stated[0]


def test_shifts_differ_between_patients() -> None:
    stored = {OURS.facts(CaseFacts(patient_id=f"P{n}", study_date="20190613")).study_date for n in range(50)}
    assert len(stored) > 45


@pytest.mark.parametrize("day", ["20190230", "2019", "00010102", "no date"])
def test_what_is_no_date_or_can_not_be_shifted_is_dropped(day: str) -> None:
    assert OURS.facts(CaseFacts(patient_id="P", study_date=day)).study_date == ""


def test_a_date_that_nothing_can_shift_is_dropped() -> None:
    assert OURS.facts(CaseFacts(study_date="20190613")).study_date == ""


@given(words, words, uids)
def test_linkage_is_kept(patient: str, issuer: str, study: str) -> None:
    first = CaseFacts(patient_id=patient, patient_id_issuer=issuer, study_uid=study, instance_uid="1.2.1")
    second = dataclasses.replace(first, instance_uid="1.2.2", series_description="other")
    ours, others = OURS.facts(first), OURS.facts(second)
    assert (ours.patient_id, ours.study_uid) == (others.patient_id, others.study_uid)
    assert ours.instance_uid != others.instance_uid


@given(st.from_regex(r"[A-Za-z]{6,12}", fullmatch=True), dates)
def test_nothing_that_was_stated_is_in_what_is_stored(name: str, day: str) -> None:
    assume(name.upper() not in "CHEST ACME RING")
    changed = {field: f"{name}{field}" for field in DROPPED | CHANGED if field not in ("age_years", "study_date")}
    stored = OURS.facts(dataclasses.replace(STATED, study_date=day, **changed))  # type: ignore[arg-type]
    texts = " ".join(str(value) for value in dataclasses.astuple(stored))
    assert name not in texts
    assert day not in texts


@pytest.mark.parametrize(
    ("years", "stored"),
    [
        (None, None),
        (0.0, 0.0),
        (5 / 365.2425, 0.0),
        (1.5, 1.5),
        (23 / 12, 23 / 12),
        (1.9999, 23 / 12),
        (2.0, 2.0),
        (45.7, 45.0),
        (89.99, 89.0),
        (90.0, 90.0),
        (90.5, 90.0),
        (120.0, 90.0),
    ],
)
def test_ages(years: float | None, stored: float | None) -> None:
    assert coarse_age(years) == stored


@given(st.floats(0, 120))
def test_a_coarse_age_stays_what_it_is_and_is_never_older(years: float) -> None:
    stored = coarse_age(years)
    assert stored is not None
    assert stored <= years + 1e-6
    assert coarse_age(stored) == stored


def to_day(text: str) -> datetime.date:
    return datetime.datetime.strptime(text, "%Y%m%d").date()
