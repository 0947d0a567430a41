"""A table of labels: one row for each image, what it turned out to be and what its file does not say."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nearcase.errors import InvalidInput
from nearcase.types import CaseFacts

TEXT_FACTS = (
    "patient_id",
    "patient_id_issuer",
    "study_uid",
    "series_uid",
    "instance_uid",
    "modality",
    "body_part",
    "laterality",
    "view",
    "sex",
    "manufacturer",
    "device_model",
    "study_date",
)
AGES = ("age_years", "age")
PREFIX = "label_"


@dataclass(frozen=True, slots=True)
class Row:
    """What the table says of one image."""

    labels: dict[str, str] = field(default_factory=dict)
    facts: CaseFacts = field(default_factory=CaseFacts)
    source: str = ""


@dataclass(frozen=True, slots=True)
class LabelTable:
    """The rows by image name, and the columns that mean nothing to us."""

    rows: dict[str, Row]
    ignored_columns: tuple[str, ...]

    def row(self, path: Path) -> Row | None:
        """Returns the row for a file, whose name or any tail of whose path may stand in the table."""
        parts = path.parts
        tails = ("/".join(parts[at:]) for at in range(len(parts)))
        return next((self.rows[tail] for tail in tails if tail in self.rows), None)


def read_labels(file: Path) -> LabelTable:
    """Reads a CSV with a column `image`; `label_NAME` columns are labels, fact columns fill what a file does not state.

    Raises:
        InvalidInput: The table can not be read; the message names line and column.
    """
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream, strict=True)
            columns = reader.fieldnames or []
            _check_columns(columns, file)
            rows: dict[str, Row] = {}
            for record in reader:
                _put(rows, record, reader.line_num, file)
    except (UnicodeDecodeError, csv.Error) as error:
        raise InvalidInput(f"{file.name}: expected a CSV table in UTF-8: {error}") from error
    known = {"image", "source", *TEXT_FACTS, *AGES}
    return LabelTable(rows, tuple(name for name in columns if name not in known and not name.startswith(PREFIX)))


def _check_columns(columns: Sequence[str], file: Path) -> None:
    if "image" not in columns:
        raise InvalidInput(
            f"{file.name}: expected a column 'image' with file names, got {', '.join(columns) or 'no header'}"
        )
    if len(set(columns)) != len(columns):
        raise InvalidInput(f"{file.name}: expected each column once")


def _put(rows: dict[str, Row], record: dict[str, str | None], line: int, file: Path) -> None:
    cells = {name: (value or "").strip() for name, value in record.items() if isinstance(name, str)}
    name = cells["image"].removeprefix("./")
    if not name or None in record or None in record.values():
        raise InvalidInput(f"{file.name} line {line}: expected as many cells as columns, and an image name")
    if name in rows:
        raise InvalidInput(f"{file.name} line {line}: this image has a row already")
    facts = {key: cells[key] for key in TEXT_FACTS if cells.get(key)}
    if "sex" in facts:
        facts["sex"] = facts["sex"].upper()
    labels = {key.removeprefix(PREFIX): value for key, value in cells.items() if key.startswith(PREFIX) and value}
    rows[name] = Row(labels, CaseFacts(**facts, age_years=_age(cells, line, file)), cells.get("source", ""))


def _age(cells: dict[str, str], line: int, file: Path) -> float | None:
    text = next((cells[name] for name in AGES if cells.get(name)), "")
    try:
        return float(text) if text else None
    except ValueError:
        raise InvalidInput(f"{file.name} line {line}: expected the age as a number of years") from None
