"""CaseFacts: what is said is taken as the standard means it, what is not said stays missing."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dicom_files import dicom_file
from hypothesis import given
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from nearcase.errors import InvalidInput
from nearcase.intake.dicom import read_dicom
from nearcase.intake.facts import read_facts, read_spacing_mm
from nearcase.types import CaseFacts

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom warns when a test sets a bad value

COHORT = Path(__file__).parents[2] / "shared" / "data" / "ct_contrast_dicom.zip"


def facts_of(**attributes: Any) -> CaseFacts:
    dataset = Dataset()
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return read_facts(dataset)


def test_nothing_said_is_nothing_known() -> None:
    assert read_facts(Dataset()) == CaseFacts()


def test_empty_values_are_nothing_said() -> None:
    keywords = ("PatientID", "PatientAge", "PatientSex", "Modality", "StudyDate", "SOPInstanceUID", "Laterality")
    assert facts_of(**dict.fromkeys(keywords, "")) == CaseFacts()


@pytest.mark.parametrize("date", ["00010101", "09991231", "20040229", "99991231"])
def test_a_date_of_any_year_is_kept(date: str) -> None:
    assert facts_of(StudyDate=date).study_date == date


@pytest.mark.parametrize("date", ["99999999", "00000000", "20050229", "00000101"])
def test_a_date_that_is_none_is_nothing_said(date: str) -> None:
    assert facts_of(StudyDate=date).study_date == ""


@pytest.mark.parametrize(
    ("age", "years"),
    [
        ("024Y", 24.0), ("006M", 0.5), ("026W", 26 * 7 / 365.2425), ("000D", 0.0), ("045D", 45 / 365.2425),
        ("000M", 0.0), ("120Y", 120.0), ("024y", 24.0), (" 024Y", 24.0),
        ("000Y", None), ("155Y", None), ("121Y", None), ("22Y", None), ("-05Y", None), ("024", None), ("Y", None),
        ("0240", None), ("999D", 999 / 365.2425), ("999M", 83.25),
    ],
)  # fmt: skip
def test_patient_age(age: str, years: float | None) -> None:
    found = facts_of(PatientAge=age).age_years
    assert found == (None if years is None else pytest.approx(years))


@pytest.mark.parametrize(
    ("attributes", "years"),
    [
        ({"PatientBirthDate": "19500112", "StudyDate": "20040826"}, 54.62),
        ({"PatientBirthDate": "1950.01.12", "StudyDate": "2004.08.26"}, 54.62),
        ({"PatientBirthDate": "19500112", "SeriesDate": "20040826"}, 54.62),
        ({"PatientBirthDate": "19500112", "StudyDate": "junk", "AcquisitionDate": "20040826"}, 54.62),
        ({"PatientBirthDate": "19500112", "StudyDate": "20040826", "PatientAge": "050Y"}, 50.0),
        ({"PatientBirthDate": "19500112", "StudyDate": "20040826", "PatientAge": "000Y"}, 54.62),
        ({"PatientBirthDate": "19500112", "StudyDate": "20040826", "PatientAge": "22Y"}, 54.62),
        ({"PatientBirthDate": "19500112", "StudyDate": "20040826", "PatientAge": "155Y"}, 54.62),
        ({"PatientBirthDate": "20040825", "StudyDate": "20040826"}, 0.0027),
        ({"PatientBirthDate": "20040827", "StudyDate": "20040826"}, None),  # born after the study
        ({"PatientBirthDate": "18000101", "StudyDate": "20040826"}, None),
        ({"PatientBirthDate": "20000101", "StudyDate": "20000101"}, None),  # one date everywhere: de-identified
        ({"PatientBirthDate": "19509999", "StudyDate": "20040826"}, None),
        ({"PatientBirthDate": "19500112"}, None),
    ],
)  # fmt: skip
def test_age_from_the_birth_date(attributes: dict[str, str], years: float | None) -> None:
    found = facts_of(**attributes).age_years
    assert found == (None if years is None else pytest.approx(years, abs=0.005))


@pytest.mark.parametrize(
    ("sex", "expected"),
    [("M", "M"), ("F", "F"), ("O", "O"), ("f", "F"), ("", ""), ("U", ""), ("FEMALE", ""), ("MF", "")],
)  # fmt: skip
def test_sex(sex: str, expected: str) -> None:
    assert facts_of(PatientSex=sex).sex == expected


def anatomy(**attributes: Any) -> Dataset:
    item, group = Dataset(), Dataset()
    for keyword, value in attributes.items():
        setattr(item, keyword, value)
    group.FrameAnatomySequence = Sequence([item])
    return group


def code(meaning: str) -> Sequence:
    region = Dataset()
    region.CodeMeaning = meaning
    return Sequence([region])


def test_laterality_of_the_image_overrules_frame_and_series() -> None:
    frame = Sequence([anatomy(FrameLaterality="B")])
    assert facts_of(ImageLaterality="R", Laterality="L", SharedFunctionalGroupsSequence=frame).laterality == "R"
    assert facts_of(Laterality="L", SharedFunctionalGroupsSequence=frame).laterality == "B"
    assert facts_of(ImageLaterality="X", Laterality="L").laterality == "L"


def test_body_part_by_name_and_by_code() -> None:
    frame = Sequence([anatomy(AnatomicRegionSequence=code("Brain"))])
    assert facts_of(BodyPartExamined="chest ", SharedFunctionalGroupsSequence=frame).body_part == "CHEST"
    assert facts_of(SharedFunctionalGroupsSequence=frame).body_part == "BRAIN"
    assert facts_of(AnatomicRegionSequence=code("Lung")).body_part == "LUNG"


def test_text_is_trimmed_bounded_and_free_of_control_characters() -> None:
    facts = facts_of(
        PatientID="a\0b\r\nFAKE LOG LINE\x1b[2J\u202e", StudyDescription="x" * 1000, Manufacturer="  A  B "
    )
    assert facts.patient_id == "a b FAKE LOG LINE [2J"
    assert len(facts.study_description) == 256
    assert facts.manufacturer == "A B"


@given(st.text(max_size=200))
def test_any_text_becomes_one_printable_line(words: str) -> None:
    found = facts_of(SeriesDescription=words.replace("\\", "")).series_description
    assert found.isprintable() or not found
    assert found == found.strip()


@pytest.mark.parametrize("uid", ["../../etc/passwd", "1.2/3", "..", "1.2;rm", "1" * 65, "1.2\\..\\3"])
def test_a_uid_that_is_none_is_refused(uid: str) -> None:
    dataset = dcmread(io.BytesIO(dicom_file()))
    dataset.add_new(0x0020000D, "LO", uid.replace("\\", "/"))
    with pytest.raises(InvalidInput) as caught:
        read_facts(dataset)
    assert (caught.value.reason, caught.value.field) == ("BAD_IDENTIFIER", "StudyInstanceUID")
    assert uid not in str(caught.value)


def test_a_patient_id_that_leads_out_of_a_folder_is_refused() -> None:
    with pytest.raises(InvalidInput):
        facts_of(PatientID="../4711")
    assert facts_of(PatientID="A/47..11").patient_id == "A/47..11"


@pytest.mark.parametrize(
    ("spacing", "expected"),
    [([0.5, 0.25], (0.5, 0.25)), ([0, 1], None), ([-1, 1], None), ([0.5], None), ([], None), ([1e9, 1], None)],
)
def test_spacing(spacing: list[float], expected: tuple[float, float] | None) -> None:
    dataset = Dataset()
    dataset.PixelSpacing = spacing
    assert read_spacing_mm(dataset, 1) == expected


def test_the_distance_on_the_detector_is_not_the_one_in_the_patient() -> None:
    dataset = Dataset()
    dataset.ImagerPixelSpacing = [0.1, 0.1]
    assert read_spacing_mm(dataset, 1) is None


def cohort() -> Iterator[tuple[dict[str, str], bytes]]:
    with zipfile.ZipFile(COHORT) as archive:
        folder = "ct_contrast_dicom"
        rows = csv.DictReader(io.TextIOWrapper(archive.open(f"{folder}/cohort.csv"), "utf-8"))
        for row in rows:
            yield row, archive.read(f"{folder}/{row['image']}")


@pytest.mark.skipif(not COHORT.exists(), reason="the real CT cohort lies beside the checkout and is not there")
def test_the_real_ct_cohort_has_the_facts_of_its_table() -> None:
    count = 0
    for row, data in cohort():
        facts = read_dicom(data).facts
        assert facts.patient_id == row["patient_id"]
        assert facts.age_years == (float(row["age"]) if row["age"] else None)
        assert facts.sex == row["sex"]
        assert facts.manufacturer == row["manufacturer"]
        assert facts.body_part == row["body_part"]
        assert facts.modality == row["modality"]
        count += 1
    assert count == 100
