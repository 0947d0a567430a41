"""The report as JSON: numbers unrounded, keys in a fixed order, nothing that is not in the schema."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Any

from nearcase.errors import InvalidInput
from nearcase_eval.audit.report import FORMAT, Report


def to_json(report: Report) -> str:
    """Returns the report as one JSON document that ends with a newline."""
    return json.dumps(plain(report), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def plain(value: Any) -> Any:
    """Returns dataclasses as dicts, enums as their values and tuples as lists; a number that is none becomes null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {each.name: plain(getattr(value, each.name)) for each in dataclasses.fields(value)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(name): plain(each) for name, each in value.items()}
    if isinstance(value, tuple | list):
        return [plain(each) for each in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, str | bool | int) or value is None:
        return value
    raise TypeError(f"expected plain data in a report, got {type(value).__name__}")


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON")


@contextmanager
def reading(*paths: Path) -> Iterator[None]:
    """Turns what a report of the right format and a wrong shape runs into, into one line."""
    try:
        yield
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        names = " or ".join(path.name for path in paths)
        raise InvalidInput(
            f"{names}: the report is damaged; its shape is not that of `nearcase-audit schema`"
        ) from error


def read_report(path: Path) -> dict[str, Any]:
    """Returns a report that was written as JSON.

    Raises:
        InvalidInput: It can not be read, or is of another format.
    """
    try:
        found = json.loads(path.read_text("utf-8"), parse_constant=_refuse_constant)
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidInput(f"{path.name}: expected a report of nearcase-audit in JSON: {error}") from error
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        kind = found.get("format") if isinstance(found, dict) else None
        raise InvalidInput(f"{path.name}: expected a report of format {FORMAT}, got {kind!r}")
    return found
