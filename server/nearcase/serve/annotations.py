"""What a client gives besides a file, checked: what could not be stored, shown or filtered on is refused."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from datetime import datetime

from nearcase.convert import facts_from_proto
from nearcase.errors import InvalidInput
from nearcase.retrieve.annotations import Annotations
from nearcase.retrieve.corrections import Correction
from nearcase.types import CaseFacts
from nearcase.v1.library_pb2 import Annotations as AnnotationsMessage
from nearcase.v1.library_pb2 import UpdateCaseRequest
from nearcase.v1.types_pb2 import CaseFacts as FactsMessage

MAX_LABELS = 64
MAX_TEXT = 256
_LABEL_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")
_UID = re.compile(r"[0-9.]{1,64}")
_DATE = re.compile(r"[0-9]{8}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def read_annotations(message: AnnotationsMessage) -> Annotations:
    """Returns the annotations of a message; codes are written as DICOM writes them, in capitals.

    Raises:
        InvalidInput: A label's name or value, a fact or the source is malformed.
    """
    annotations = Annotations(dict(message.labels), _in_capitals(facts_from_proto(message.facts)), message.source)
    _check_labels(annotations.labels)
    if not all(annotations.labels.values()):
        raise InvalidInput("a label needs a value; leave the label out where the outcome is not known", field="labels")
    check_text(annotations.source, "source")
    _check_facts(annotations.facts)
    return annotations


def read_facts(message: FactsMessage) -> CaseFacts:
    """Returns the facts that a request gives of a query, in the words of DICOM as `read_annotations` does.

    Raises:
        InvalidInput: A fact is malformed.
    """
    if not message.ListFields():  # as with most queries
        return CaseFacts()
    facts = _in_capitals(facts_from_proto(message))
    facts = dataclasses.replace(facts, body_part=facts.body_part.strip().upper(), patient_id=facts.patient_id.strip())
    _check_facts(facts)
    return facts


def _in_capitals(facts: CaseFacts) -> CaseFacts:
    capitals = {name: getattr(facts, name).strip().upper() for name in ("modality", "sex", "laterality")}
    return dataclasses.replace(facts, **capitals)


def read_correction(request: UpdateCaseRequest, caller: str) -> Correction:
    """Returns the correction that a request asks for, by an authenticated caller or by whom the request names.

    Raises:
        InvalidInput: A label's name or value is malformed, or who says so is.
    """
    _check_labels(request.labels)
    changed_by = caller or request.changed_by
    check_text(changed_by, "changed_by")
    return Correction(dict(request.labels), tuple(request.set_flags), tuple(request.clear_flags), changed_by)


def _check_labels(labels: Mapping[str, str]) -> None:
    if len(labels) > MAX_LABELS:
        raise InvalidInput(f"expected at most {MAX_LABELS} labels, got {len(labels)}", field="labels")
    for name, value in labels.items():
        if not _LABEL_NAME.fullmatch(name):
            raise InvalidInput("a label's name is a letter, then up to 63 letters, digits or ._-", field="labels")
        check_text(value, "labels")


def check_text(text: str, field: str) -> None:
    """Refuses text that is too long or holds control characters.

    Raises:
        InvalidInput: It is.
    """
    if len(text) > MAX_TEXT or _CONTROL.search(text):
        raise InvalidInput(f"expected at most {MAX_TEXT} characters without control characters", field=field)


def _check_facts(facts: CaseFacts) -> None:
    for field in dataclasses.fields(facts):
        if isinstance(value := getattr(facts, field.name), str):
            check_text(value, field.name)
    if facts.age_years is not None and not 0 <= facts.age_years <= 120:
        raise InvalidInput("expected an age from 0 to 120 years", field="age_years")
    if facts.sex not in ("", "M", "F", "O"):
        raise InvalidInput("expected the sex as M, F or O, or none", field="sex")
    if facts.laterality not in ("", "L", "R", "B", "U"):
        raise InvalidInput("expected the laterality as L, R, B or U, or none", field="laterality")
    for name in ("study_uid", "series_uid", "instance_uid", "sop_class_uid"):
        if getattr(facts, name) and not _UID.fullmatch(getattr(facts, name)):
            raise InvalidInput("expected a UID of digits and points, at most 64 (PS3.5 9.1)", field=name)
    if facts.study_date:
        _check_date(facts.study_date)


def _check_date(text: str) -> None:
    try:
        if not _DATE.fullmatch(text):  # strptime takes fewer digits, and those of any script
            raise ValueError
        datetime.strptime(text, "%Y%m%d")
    except ValueError:
        raise InvalidInput("expected the study date as YYYYMMDD", field="study_date") from None
