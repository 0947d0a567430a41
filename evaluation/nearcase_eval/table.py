"""Rows of a CSV table as text, checked for shape."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from nearcase.errors import InvalidInput
from nearcase_eval.files import open_files

Row = dict[str, str]


def read_rows(path: Path) -> list[Row]:
    """Returns the rows of a CSV in UTF-8, which may lie in a zip.

    Raises:
        InvalidInput: It can not be read; the message names the line.
    """
    data = open_files(path.parent).read(path.name)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{path.name}: expected UTF-8, got another encoding at byte {error.start}") from error
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        rows = [_checked(record, reader.line_num, path) for record in reader]
    except csv.Error as error:
        raise InvalidInput(f"{path.name} line {reader.line_num}: {error}") from error
    names = reader.fieldnames or []
    if len(set(names)) != len(names):
        raise InvalidInput(f"{path.name}: expected each column once")
    return rows


def _checked(record: dict[str | None, str | None], line: int, path: Path) -> Row:
    if None in record or None in record.values():
        raise InvalidInput(f"{path.name} line {line}: expected as many cells as columns")
    return {str(name): (value or "").strip() for name, value in record.items()}
