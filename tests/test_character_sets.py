"""Text facts in the character sets of DICOM come out as they were meant (PS3.3 C.12.1.1.2, PS3.5 6.1)."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest
from dicom_files import dicom_file, replaced

from nearcase.intake.dicom import read_dicom
from nearcase.intake.facts import read_facts
from nearcase.intake.parse import parse

CHARSET_FILES = sorted((Path(pydicom.__file__).parent / "data" / "charset_files").glob("chr*.dcm"))

# The escape sequences of ISO 2022 are written out: in Python, only Japanese has a codec that writes them.
TABLE = [
    ("ISO_IR 6", b"Thorax", "Thorax"),
    ("ISO_IR 100", "Schädel, Übersicht".encode("latin-1"), "Schädel, Übersicht"),
    ("ISO_IR 101", "Płuca, żebra".encode("iso8859-2"), "Płuca, żebra"),
    ("ISO_IR 109", "Ĉirkaŭ la koro".encode("iso8859-3"), "Ĉirkaŭ la koro"),
    ("ISO_IR 110", "Krūšu kurvja rentgens".encode("iso8859-4"), "Krūšu kurvja rentgens"),
    ("ISO_IR 144", "Грудная клетка".encode("iso8859-5"), "Грудная клетка"),
    ("ISO_IR 127", "قباني للصدر".encode("iso8859-6"), "قباني للصدر"),
    ("ISO_IR 126", "Θώρακας".encode("iso8859-7"), "Θώρακας"),
    ("ISO_IR 138", "צילום חזה".encode("iso8859-8"), "צילום חזה"),
    ("ISO_IR 148", "Göğüs ışını".encode("iso8859-9"), "Göğüs ışını"),
    ("ISO_IR 203", "Cœur, 5 €".encode("iso8859-15"), "Cœur, 5 €"),
    ("ISO_IR 13", "ﾔﾏﾀﾞ ｷｮｳﾌﾞ".encode("shift_jis"), "ﾔﾏﾀﾞ ｷｮｳﾌﾞ"),
    ("ISO_IR 166", "ทรวงอก".encode("tis-620"), "ทรวงอก"),
    ("ISO_IR 192", "胸部 грудь θώραξ".encode(), "胸部 грудь θώραξ"),
    ("GB18030", "胸部正位片 𠮷".encode("gb18030"), "胸部正位片 𠮷"),
    ("GBK", "腹部超声".encode("gbk"), "腹部超声"),
    ("\\ISO 2022 IR 87", b"Kyobu " + "胸部".encode("iso2022_jp"), "Kyobu 胸部"),
    ("\\ISO 2022 IR 159", b"\x1b$(D\x30\x22\x1b(B x", "丄 x"),
    ("\\ISO 2022 IR 149", b"\x1b$)C" + "흉부 정면".encode("euc_kr"), "흉부 정면"),
    ("\\ISO 2022 IR 58", b"\x1b$)A" + "胸部".encode("gb2312"), "胸部"),
    ("ISO 2022 IR 100\\ISO 2022 IR 126", "Büro ".encode("latin-1") + b"\x1b-F" + "Θ".encode("iso8859-7"), "Büro Θ"),
]


@pytest.fixture(autouse=True)
def pydicom_may_warn() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def with_text(keyword: str, charset: str, encoded: bytes) -> bytes:
    """A file whose element holds exactly these bytes."""
    padded = encoded + b" " * (len(encoded) % 2)
    placeholder = "Q" * len(padded)
    attributes: dict[str, Any] = {"SpecificCharacterSet": charset.split("\\"), keyword: placeholder}
    data = dicom_file(**attributes)
    return replaced(data, placeholder.encode(), padded)


@pytest.mark.parametrize(("charset", "encoded", "meant"), TABLE, ids=[row[0].strip("\\") for row in TABLE])
@pytest.mark.parametrize(
    ("keyword", "fact"),
    [
        ("PatientID", "patient_id"),
        ("StudyDescription", "study_description"),
        ("SeriesDescription", "series_description"),
        ("Manufacturer", "manufacturer"),
    ],
)
def test_text_is_what_was_meant(keyword: str, fact: str, charset: str, encoded: bytes, meant: str) -> None:
    assert getattr(read_dicom(with_text(keyword, charset, encoded)).facts, fact) == meant


@pytest.mark.parametrize("charset", ["", "ISO_IR 999", "utf8", "ISO_IR 192\\ISO 2022 IR 87"])
def test_an_unknown_or_wrong_character_set_keeps_what_is_ascii(charset: str) -> None:
    facts = read_dicom(with_text("StudyDescription", charset, b"Thorax a.p.")).facts
    assert facts.study_description == "Thorax a.p."


def test_bytes_that_the_character_set_does_not_know_do_not_refuse_the_image() -> None:
    facts = read_dicom(with_text("StudyDescription", "ISO_IR 192", b"Th\xff\xfeorax")).facts
    assert facts.study_description.startswith("Th")
    assert facts.study_description.isprintable()


@pytest.mark.parametrize("path", CHARSET_FILES, ids=lambda path: path.stem)
def test_real_files_of_each_character_set_have_the_facts_that_pydicom_reads(path: Path) -> None:
    reference = pydicom.dcmread(path)
    facts = read_facts(parse(path.read_bytes()).dataset)
    assert facts.patient_id == " ".join(str(reference.get("PatientID", "")).split())
    assert facts.study_uid == str(reference.get("StudyInstanceUID", ""))
