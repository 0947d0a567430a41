"""The report that a person reads before one library takes the place of another: JSON with a digest that names it."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nearcase.errors import InvalidInput, NotFound, Unready
from nearcase.reembed.building import Built
from nearcase.reembed.comparing import Comparison

FORMAT = "nearcase-reembed"
FORMAT_VERSION = 1
JSON_NAME, PAGE_NAME = "reembed.json", "reembed.html"


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two libraries."""

    encoder_identity: str
    dimension: int
    pseudonym_check: str
    case_count: int
    snapshot: str


@dataclass(frozen=True, slots=True)
class Recall:
    """How many of the exact neighbours the new library's index finds."""

    value: float  # 0 to 1
    query_count: int
    k: int
    is_exact: bool  # every search is exact, so that it is 1 by construction


@dataclass(frozen=True, slots=True)
class Report:
    """What a build gave and what it changes."""

    old: Side
    new: Side
    built: Built
    comparison: Comparison
    recall: Recall
    changed_meanwhile: bool  # the old library is not any more what the new one was built from
    created: str  # ISO 8601, UTC

    def body(self) -> dict[str, Any]:
        """Returns the report for machines, with its digest last."""
        body = {"format": FORMAT, "format_version": FORMAT_VERSION} | asdict(self)
        return body | {"digest": _digest(body)}


@dataclass(frozen=True, slots=True)
class Accepted:
    """What of a stored report decides whether the switch may be made."""

    old: Side
    new: Side
    lost_count: int  # cases without a new embedding
    changed_meanwhile: bool
    digest: str


def write_report(data: Path, report: Report, page: str) -> str:
    """Writes the report and its page into the data folder and returns its digest.

    Raises:
        Unready: The disk refuses.
    """
    body = report.body()
    try:
        _replace(data / PAGE_NAME, page)
        _replace(data / JSON_NAME, json.dumps(body, indent=2, allow_nan=False) + "\n")
    except OSError as error:
        raise Unready(f"the report can not be written: {error.strerror}", reason="DISK") from error
    return str(body["digest"])


def drop_report(data: Path) -> None:
    """Removes the report of an earlier build, which the next build makes untrue."""
    for name in (JSON_NAME, PAGE_NAME):
        (data / name).unlink(missing_ok=True)


def read_report(data: Path) -> Accepted:
    """Returns the report of the last build.

    Raises:
        NotFound: There is none.
        InvalidInput: It was edited, or is of another version.
    """
    try:
        body = json.loads((data / JSON_NAME).read_bytes())
        digest = body.pop("digest")
        if digest != _digest(body) or (body["format"], body["format_version"]) != (FORMAT, FORMAT_VERSION):
            raise ValueError
        lost = len(body["built"]["missing"]) + len(body["built"]["refused"])
        return Accepted(Side(**body["old"]), Side(**body["new"]), lost, bool(body["changed_meanwhile"]), digest)
    except FileNotFoundError:
        raise NotFound(f"expected a report {JSON_NAME} in the data folder, found none", reason="NO_REPORT") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        message = f"{JSON_NAME} can not be read, or was edited; build again"
        raise InvalidInput(message, reason="REPORT_INVALID") from None


def _digest(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True, allow_nan=False).encode()).hexdigest()


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(f"{path.name}.writing")
    try:
        with open(temporary, "w", encoding="utf-8", opener=_private) as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        with suppress(OSError):
            temporary.unlink()
        raise


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
