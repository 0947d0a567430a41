"""What a case must be to enter a library from outside: checked where a file is read, and by the server again.

The rules are those of adding (an id, a label, a date as they can be stored, shown and filtered on) and of the index
(a finite vector of unit length). docs/export.md states them for people who write such files.
"""

from __future__ import annotations

import dataclasses
import math
import re
import uuid
from typing import TYPE_CHECKING

import numpy as np

from nearcase.errors import InvalidInput
from nearcase.retrieve.cases import FLAGS
from nearcase.retrieve.corrections import MAX_HISTORY, MERGED
from nearcase.types import CaseFacts

if TYPE_CHECKING:
    from nearcase.transfers import StoredCase
    from nearcase.types import Case, LabelChange

UNIT_TOLERANCE = 1e-6
"""The length of a vector is 1 within this, as that of every vector that a library gave out."""

MAX_LABELS = 64
MAX_TEXT = 1024
MAX_THUMBNAIL_BYTES = 2**20
MAX_AGE_YEARS = 150.0

_FACTS = tuple(field.name for field in dataclasses.fields(CaseFacts))
_TEXTS = tuple(name for name in _FACTS if name != "age_years")
_UIDS = ("study_uid", "series_uid", "instance_uid", "sop_class_uid")
_UID = re.compile(r"[0-9.]{1,64}")
_LABEL_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_DATE = re.compile(r"[0-9]{8}")  # kept as a number
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_LAST_S = 1e11  # about the year 5138

MOST_AHEAD_S = 86400.0
"""A time of adding may be so far ahead of the clock that reads it: two clocks differ, and zones are mistaken."""


def check_stored(stored: StoredCase, dimension: int, now_s: float) -> None:
    """Refuses a case that no library could have given out by now.

    Raises:
        InvalidInput: Something of it is malformed; the field is named, its value is not.
    """
    case = stored.case
    _check_id(case.case_id)
    check_vector(stored, dimension)
    _check_facts(case.facts)
    _check_labels(case)
    _check_text(case.source, "source")
    _need(set(case.given) <= set(_FACTS), "given", "names of facts")
    _need(set(case.flags) <= set(FLAGS) and len(set(case.flags)) == len(case.flags), "flags", " or ".join(FLAGS))
    _need(1 <= case.frame_number <= case.frame_count < 2**31, "frame_number", "a frame from 1 to frame_count")
    _need(case.content_sha256 == "" or bool(_SHA256.fullmatch(case.content_sha256)), "content_sha256", "64 digits")
    _check_time(case.added_at_s, "added_at_s")
    # One such case would hold up retention, which trusts no clock that is behind what the library has seen.
    _need(case.added_at_s <= now_s + MOST_AHEAD_S, "added_at_s", "a time at most a day ahead of the clock here")
    picture = case.thumbnail_jpeg
    _need(picture == b"" or picture.startswith(b"\xff\xd8"), "thumbnail_jpeg", "a JPEG file or nothing")
    _need(len(picture) <= MAX_THUMBNAIL_BYTES, "thumbnail_jpeg", f"at most {MAX_THUMBNAIL_BYTES} bytes")


def check_vector(stored: StoredCase, dimension: int) -> None:
    """Refuses a vector of another dimension, with values that are not finite, or not of unit length.

    Raises:
        InvalidInput: It is such a vector.
    """
    vector = stored.vector
    _need(vector.shape == (dimension,), "vector", f"{dimension} numbers")
    _need(bool(np.isfinite(vector).all()), "vector", "finite numbers")
    length = float(np.linalg.norm(vector.astype(np.float64)))
    _need(abs(length - 1.0) <= UNIT_TOLERANCE, "vector", f"a length of 1 within {UNIT_TOLERANCE:g}")


def _check_id(case_id: str) -> None:
    try:
        canonical = str(uuid.UUID(case_id))
    except ValueError:
        canonical = ""
    _need(canonical == case_id, "case_id", "a UUID in lower case with hyphens")


def _check_facts(facts: CaseFacts) -> None:
    for name in _TEXTS:
        _check_text(getattr(facts, name), name)
    for name in _UIDS:
        value = getattr(facts, name)
        _need(not value or bool(_UID.fullmatch(value)), name, "a UID of digits and points, at most 64")
    _need(not facts.study_date or bool(_DATE.fullmatch(facts.study_date)), "study_date", "YYYYMMDD")
    if facts.age_years is not None:
        is_age = math.isfinite(facts.age_years) and 0.0 <= facts.age_years <= MAX_AGE_YEARS
        _need(is_age, "age_years", f"0 to {MAX_AGE_YEARS:g}")


def _check_labels(case: Case) -> None:
    _need(len(case.labels) <= MAX_LABELS, "labels", f"at most {MAX_LABELS}")
    for name, value in case.labels.items():
        _check_label_name(name, "labels")
        _need(value != "", "labels", "a value for each name")
        _check_text(value, "labels")
    _need(len(case.history) <= MAX_HISTORY, "history", f"at most {MAX_HISTORY} changes")
    for change in case.history:
        _check_change(change)
    times = [change.changed_at_s for change in case.history]
    _need(times == sorted(times), "history", "changes in the order of their times")


def _check_change(change: LabelChange) -> None:
    if change.name != MERGED:
        _check_label_name(change.name, "history")
    for text in (change.old, change.new, change.changed_by):
        _check_text(text, "history")
    _check_time(change.changed_at_s, "history")


def _check_label_name(name: str, field: str) -> None:
    _need(bool(_LABEL_NAME.fullmatch(name)), field, "names of a letter, then up to 63 letters, digits or ._-")


def _check_text(text: str, field: str) -> None:
    fits = len(text) <= MAX_TEXT and not _CONTROL.search(text)
    _need(fits, field, f"at most {MAX_TEXT} characters without control characters")


def _check_time(time_s: float, field: str) -> None:
    _need(math.isfinite(time_s) and 0.0 <= time_s < _LAST_S, field, "seconds since 1970")


def _need(holds: bool, field: str, expected: str) -> None:
    """The value itself is never told: it may be a patient's."""
    if not holds:
        raise InvalidInput(f"expected in {field} {expected}, got another value", field=field)
