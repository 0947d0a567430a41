"""Tables of public sets as rows of text: CSV with any separator, plain lists, and the first sheet of an Excel file."""

from __future__ import annotations

import csv
import importlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nearcase.errors import InvalidInput, Unready
from nearcase_eval.table import Row


def find(folder: Path, patterns: Sequence[str], what: str) -> Path:
    """Returns the one file below a folder that a pattern matches; the first pattern with a match decides.

    Raises:
        InvalidInput: There is none, or several.
    """
    for pattern in patterns:
        found = sorted(folder.rglob(pattern))
        if len(found) == 1:
            return found[0]
        if found:
            names = ", ".join(path.relative_to(folder).as_posix() for path in found[:3])
            raise InvalidInput(f"expected one {what} ({pattern}) in {folder.name}, found {len(found)}: {names}")
    raise InvalidInput(f"expected {what} ({' or '.join(patterns)}) in {folder.name}, found none")


def read_table(path: Path, needed: Sequence[str], delimiter: str = ",") -> list[Row]:
    """Returns the rows of a .csv, or of the first sheet of an .xlsx.

    Raises:
        InvalidInput: The file can not be read, has no rows, or lacks a column.
        Unready: It is an .xlsx and openpyxl is not installed.
    """
    rows = _sheet(path) if path.suffix.lower() == ".xlsx" else _csv(path, delimiter)
    if not rows:
        raise InvalidInput(f"{path.name}: expected rows, found none")
    if missing := [name for name in needed if name not in rows[0]]:
        columns = ", ".join(list(rows[0])[:20])
        raise InvalidInput(f"{path.name}: expected the column {missing[0]!r}, found {columns}")
    return rows


def read_list(path: Path) -> list[str]:
    """Returns the lines of a text file that are not empty."""
    return [line.strip() for line in _text(path).splitlines() if line.strip()]


def optional(module: str, why: str) -> Any:
    """Returns a module that only some recipes need.

    Raises:
        Unready: It is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise Unready(f"{why} needs {module}: pip install 'nearcase[recipes]'", reason="EXTRA_ABSENT") from error


def _csv(path: Path, delimiter: str) -> list[Row]:
    reader = csv.DictReader(io.StringIO(_text(path), newline=""), delimiter=delimiter)
    try:
        return [{str(name).strip(): (value or "").strip() for name, value in row.items() if name} for row in reader]
    except (csv.Error, AttributeError) as error:  # a row that is longer than the header has a list among its values
        raise InvalidInput(f"{path.name} line {reader.line_num}: {error}") from error


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{path.name}: expected UTF-8, got another encoding at byte {error.start}") from error
    except OSError as error:
        raise InvalidInput(f"{path.name}: {error.strerror}") from error


def _sheet(path: Path) -> list[Row]:
    openpyxl = optional("openpyxl", f"reading {path.name}")
    try:
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
    except Exception as error:  # a damaged file fails in many ways inside the library
        raise InvalidInput(f"{path.name}: expected an Excel file: {str(error)[:100]}") from error
    try:
        rows = list(book.worksheets[0].iter_rows(values_only=True))
    finally:
        book.close()
    if not rows:
        return []
    names = [_cell(value) for value in rows[0]]
    texts = [dict(zip(names, map(_cell, row), strict=False)) for row in rows[1:]]
    return [{name: value for name, value in row.items() if name} for row in texts if any(row.values())]


def _cell(value: object) -> str:
    if value is None:
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()
