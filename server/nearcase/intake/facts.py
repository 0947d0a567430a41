"""What a DICOM dataset says of its patient, study and acquisition; what it does not say stays missing."""

from __future__ import annotations

import datetime
import re

from pydicom.dataset import Dataset

from nearcase.errors import InvalidInput
from nearcase.intake.elements import frame_macro, item, text
from nearcase.types import CaseFacts

OLDEST_YEARS = 120.0
_UNITS = {"Y": 1.0, "M": 1.0 / 12.0, "W": 7.0 / 365.2425, "D": 1.0 / 365.2425}
_UID = re.compile(r"[0-9A-Za-z][0-9A-Za-z._-]{0,63}")  # digits and points by PS3.5 9.1; pseudonyms hold letters too
_TRAVERSAL = re.compile(r"\.\.[/\\]")
_DESCRIPTION_CHARACTERS = 256


def read_facts(dataset: Dataset, *, sop_class_uid: str = "", frame_number: int = 1) -> CaseFacts:
    """Returns the facts of one frame of a dataset.

    Args:
        dataset: The parsed object.
        sop_class_uid: Used where the dataset has none (the file's meta information).
        frame_number: Counts from 1; body part and laterality may differ between frames of an enhanced object.

    Raises:
        InvalidInput: An identifier could lead out of a folder (../), or a UID has characters that no UID has.
    """
    anatomy = frame_macro(dataset, "FrameAnatomySequence", frame_number)
    return CaseFacts(
        patient_id=_identifier(dataset, "PatientID"),
        patient_id_issuer=text(dataset, "IssuerOfPatientID"),
        study_uid=_uid(dataset, "StudyInstanceUID"),
        series_uid=_uid(dataset, "SeriesInstanceUID"),
        instance_uid=_uid(dataset, "SOPInstanceUID"),
        sop_class_uid=_uid(dataset, "SOPClassUID") or sop_class_uid,
        modality=text(dataset, "Modality").upper(),
        body_part=_body_part(dataset, anatomy),
        laterality=_laterality(dataset, anatomy),
        view=text(dataset, "ViewPosition").upper(),
        age_years=_age_years(dataset),
        sex=_sex(dataset),
        manufacturer=text(dataset, "Manufacturer"),
        device_model=text(dataset, "ManufacturerModelName"),
        study_date=_date_text(dataset, "StudyDate"),
        study_description=text(dataset, "StudyDescription", max_characters=_DESCRIPTION_CHARACTERS),
        series_description=text(dataset, "SeriesDescription", max_characters=_DESCRIPTION_CHARACTERS),
    )


def read_spacing_mm(dataset: Dataset, frame_number: int) -> tuple[float, float] | None:
    """Returns the distance in the patient between rows and between columns, or None.

    Pixel Spacing only (PS3.3 10.7.1.1), of the frame's Pixel Measures first (C.7.6.16.2.1). Imager Pixel Spacing is
    the distance on the detector, not in the patient (C.8.11.3), and is not taken for it.
    """
    measures = frame_macro(dataset, "PixelMeasuresSequence", frame_number)
    for source in (measures, dataset):
        values: object = None if source is None else source.get("PixelSpacing")
        try:
            rows_mm, columns_mm = (float(str(value)) for value in values)  # type: ignore[attr-defined]
        except (TypeError, ValueError):
            continue
        if 0.0 < rows_mm < 1e4 and 0.0 < columns_mm < 1e4:
            return rows_mm, columns_mm
    return None


def _uid(dataset: Dataset, keyword: str) -> str:
    uid = text(dataset, keyword, max_characters=128)
    if uid and not _UID.fullmatch(uid):
        raise InvalidInput(
            f"expected at most 64 letters, digits and points as {keyword}, got other characters",
            reason="BAD_IDENTIFIER",
            field=keyword,
        )
    return uid


def _identifier(dataset: Dataset, keyword: str) -> str:
    identifier = text(dataset, keyword)
    if _TRAVERSAL.search(identifier):
        raise InvalidInput(f"expected no ../ in {keyword}, got one", reason="BAD_IDENTIFIER", field=keyword)
    return identifier


def _body_part(dataset: Dataset, anatomy: Dataset | None) -> str:
    """Body Part Examined, else the meaning of the anatomic region's code (PS3.3 10.5, C.7.6.16.2.8)."""
    part = text(dataset, "BodyPartExamined")
    for source in (anatomy, dataset):
        region = item(source, "AnatomicRegionSequence")
        part = part or ("" if region is None else text(region, "CodeMeaning"))
    return part.upper()


def _laterality(dataset: Dataset, anatomy: Dataset | None) -> str:
    """Image Laterality, else the frame's, else the series' (PS3.3 C.7.6.1.1.1: the image overrules the series)."""
    sources = ((dataset, "ImageLaterality"), (anatomy, "FrameLaterality"), (dataset, "Laterality"))
    for source, keyword in sources:
        side = "" if source is None else text(source, keyword).upper()
        if side in ("L", "R", "B", "U"):
            return side
    return ""


def _sex(dataset: Dataset) -> str:
    sex = text(dataset, "PatientSex").upper()
    return sex if sex in ("M", "F", "O") else ""


def _age_years(dataset: Dataset) -> float | None:
    """Patient's Age (AS, PS3.5 6.2), else from the birth date at the date of the study.

    The stated age comes first because de-identification blurs birth dates before ages. 000Y is what scanners write
    for an age nobody entered; that, a malformed age and one outside 0 to 120 years state nothing, a birth date may.
    """
    stated = re.fullmatch(r"([0-9]{3})([DWMY])", text(dataset, "PatientAge").upper())
    if stated and stated[0] != "000Y":
        years = int(stated[1]) * _UNITS[stated[2]]
        if years <= OLDEST_YEARS:
            return years
    born = _date(dataset, "PatientBirthDate")
    seen = next(
        (day for day in (_date(dataset, name) for name in ("StudyDate", "SeriesDate", "AcquisitionDate")) if day),
        None,
    )
    if born is None or seen is None or born == seen:  # one date everywhere is what de-identification writes
        return None
    years = (seen - born).days / 365.2425
    return years if 0.0 <= years <= OLDEST_YEARS else None


def _date(dataset: Dataset, keyword: str) -> datetime.date | None:
    """A date of the form YYYYMMDD, or YYYY.MM.DD as before 1993 (PS3.5 6.2, DA)."""
    words = text(dataset, keyword)
    if not re.fullmatch(r"[0-9]{8}|[0-9]{4}\.[0-9]{2}\.[0-9]{2}", words):
        return None
    try:
        return datetime.date.fromisoformat(words.replace(".", ""))
    except ValueError:
        return None


def _date_text(dataset: Dataset, keyword: str) -> str:
    day = _date(dataset, keyword)
    return "" if day is None else day.isoformat().replace("-", "")  # %Y does not pad years below 1000
