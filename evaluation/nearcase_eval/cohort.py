"""A cohort: images with what each turned out to be, whose they are, and how they are split; read from one TOML file.

name = "ISIC 2017"
images = "isic2017.zip/isic2017"       # a folder, or a folder inside a zip, beside this file
table = "isic2017.zip/isic2017/cohort.csv"
protocol = "leave-one-patient-out"     # or "library-test", which needs [split]

[columns]                              # defaults: image, patient_id, sex, age, split
patient = "patient_id"

[[finding]]
name = "melanoma"
column = "label_melanoma"
positive = ["1"]
negative = ["0"]

[split]
library = ["train"]
test = ["validation"]
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nearcase.errors import InvalidInput
from nearcase_eval.files import Files, open_files
from nearcase_eval.table import Row, read_rows

LEAVE_ONE_PATIENT_OUT = "leave-one-patient-out"
LIBRARY_TEST = "library-test"
_KEYS = {"name", "images", "table", "protocol", "columns", "finding", "split", "note"}
_COLUMNS = {"image": "image", "patient": "patient_id", "sex": "sex", "age": "age", "split": "split"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One outcome: which values of which column are positive and which negative; others tell nothing."""

    name: str
    column: str
    positive: tuple[str, ...]
    negative: tuple[str, ...]

    def truth(self, row: Row) -> bool | None:
        """Returns the outcome of a row; None where it is not known."""
        value = row.get(self.column, "")
        return True if value in self.positive else False if value in self.negative else None


@dataclass(frozen=True, slots=True)
class CohortImage:
    """One image of the cohort."""

    name: str
    patient: str
    sex: str
    age: str
    is_query: bool
    is_library: bool
    truths: Mapping[str, bool]  # finding to outcome; unknown outcomes are left out
    columns: Row  # the whole row, for other groups


@dataclass(frozen=True, slots=True)
class Cohort:
    """All images, in the order of the table."""

    name: str
    note: str
    protocol: str
    findings: tuple[Finding, ...]
    images: tuple[CohortImage, ...]
    files: Files = field(compare=False)
    extra_columns: tuple[str, ...] = ()


def read_cohort(file: Path) -> Cohort:
    """Returns the cohort that a TOML file describes.

    Raises:
        InvalidInput: The file, the table or a row is malformed, a finding has no positives, or a patient is in both
            the library and the test set.
    """
    try:
        table = tomllib.loads(file.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidInput(f"{file.name}: {error}") from error
    if unknown := sorted(set(table) - _KEYS):
        raise InvalidInput(f"{file.name}: unknown key {unknown[0]!r}; known: {', '.join(sorted(_KEYS))}")
    try:
        return _cohort(table, file)
    except KeyError as error:
        raise InvalidInput(f"{file.name}: the key {error} is missing") from error


def _cohort(table: Mapping[str, Any], file: Path) -> Cohort:
    columns = _COLUMNS | dict(table.get("columns", {}))
    findings = tuple(_finding(entry) for entry in table["finding"])
    rows = read_rows(file.parent / table["table"])
    _check_columns(rows, [*columns.values()][:2] + [finding.column for finding in findings], file)
    split = table.get("split", {})
    protocol = table.get("protocol", LEAVE_ONE_PATIENT_OUT)
    if protocol not in (LEAVE_ONE_PATIENT_OUT, LIBRARY_TEST):
        raise InvalidInput(
            f"{file.name}: expected protocol {LEAVE_ONE_PATIENT_OUT} or {LIBRARY_TEST}, got {protocol!r}"
        )
    images = tuple(_image(row, columns, findings, split, protocol) for row in rows)
    used = tuple(image for image in images if image.is_query or image.is_library)
    _check_images(used, findings, protocol, file)
    known = {*columns.values(), *(finding.column for finding in findings)}
    extra = tuple(name for name in rows[0] if name not in known)
    files = open_files(file.parent / table["images"])
    return Cohort(table["name"], table.get("note", ""), protocol, findings, used, files, extra)


def _finding(entry: Mapping[str, Any]) -> Finding:
    positive, negative = (
        tuple(map(str, entry.get(key, [value]))) for key, value in (("positive", "1"), ("negative", "0"))
    )
    return Finding(entry["name"], entry["column"], positive, negative)


def _image(
    row: Row, columns: Mapping[str, str], findings: Sequence[Finding], split: Mapping[str, Sequence[str]], protocol: str
) -> CohortImage:
    part = row.get(columns["split"], "")
    is_open = protocol == LEAVE_ONE_PATIENT_OUT
    truths = {finding.name: truth for finding in findings if (truth := finding.truth(row)) is not None}
    return CohortImage(
        name=row[columns["image"]],
        patient=row[columns["patient"]],
        sex=row.get(columns["sex"], ""),
        age=row.get(columns["age"], ""),
        is_query=is_open or part in split.get("test", ()),
        is_library=is_open or part in split.get("library", ()),
        truths=truths,
        columns=row,
    )


def _check_columns(rows: Sequence[Row], needed: Sequence[str], file: Path) -> None:
    if not rows:
        raise InvalidInput(f"{file.name}: the table has no rows")
    if missing := [name for name in needed if name not in rows[0]]:
        raise InvalidInput(f"{file.name}: the table has no column {missing[0]!r}; it has {', '.join(rows[0])}")


def _check_images(images: Sequence[CohortImage], findings: Sequence[Finding], protocol: str, file: Path) -> None:
    """A patient who is in both sets would find themself: that is no test."""
    if unnamed := sum(not image.patient for image in images):
        raise InvalidInput(f"{file.name}: {unnamed} images have no patient; who is whom decides what counts as found")
    if len({image.name for image in images}) != len(images):
        raise InvalidInput(f"{file.name}: an image has two rows")
    if protocol == LIBRARY_TEST:
        library = {image.patient for image in images if image.is_library}
        both = library & {image.patient for image in images if image.is_query}
        if both:
            raise InvalidInput(f"{file.name}: {len(both)} patients are in both the library and the test set")
    for finding in findings:
        known = [image.truths[finding.name] for image in images if image.is_query and finding.name in image.truths]
        if not any(known) or all(known):
            raise InvalidInput(f"{file.name}: {finding.name} needs positives and negatives among the queries")
