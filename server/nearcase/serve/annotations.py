"""What a person or a table adds to a file: checked, then merged; what the file states wins."""

from __future__ import annotations

import dataclasses
import re

from nearcase.convert import facts_from_proto
from nearcase.errors import InvalidInput
from nearcase.types import Case, CaseFacts
from nearcase.v1.library_pb2 import Annotations

MAX_LABELS = 64
MAX_TEXT = 256
_LABEL_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def check(annotations: Annotations) -> None:
    """Refuses what could not be stored, shown or filtered on.

    Raises:
        InvalidInput: A label's name or value, a fact or the source is malformed.
    """
    if len(annotations.labels) > MAX_LABELS:
        raise InvalidInput(f"expected at most {MAX_LABELS} labels, got {len(annotations.labels)}", field="labels")
    for name, value in annotations.labels.items():
        if not _LABEL_NAME.fullmatch(name):
            raise InvalidInput("a label's name is a letter, then up to 63 letters, digits or ._-", field="labels")
        if not value:
            raise InvalidInput(
                "a label needs a value; leave the label out where the outcome is not known", field="labels"
            )
        _check_text(value, "labels")
    _check_text(annotations.source, "source")
    facts = facts_from_proto(annotations.facts)
    for field in dataclasses.fields(facts):
        if isinstance(value := getattr(facts, field.name), str):
            _check_text(value, field.name)
    _check_facts(facts)


def merge(case: Case, annotations: Annotations) -> Case:
    """Returns the case with the labels, the source, and facts where the file states none."""
    facts = fill(case.facts, facts_from_proto(annotations.facts))
    return dataclasses.replace(case, facts=facts, labels=dict(annotations.labels), source=annotations.source)


def fill(stated: CaseFacts, given: CaseFacts) -> CaseFacts:
    """Returns the stated facts, with given ones where nothing is stated."""
    names = [field.name for field in dataclasses.fields(CaseFacts)]
    missing = {name: getattr(given, name) for name in names if getattr(stated, name) in ("", None)}
    return dataclasses.replace(stated, **missing)


def adds_nothing(case: Case, annotations: Annotations) -> bool:
    """True when the case already says all that these annotations would make it say."""
    return merge(case, annotations) == case


def _check_text(text: str, field: str) -> None:
    if len(text) > MAX_TEXT or _CONTROL.search(text):
        raise InvalidInput(f"expected at most {MAX_TEXT} characters without control characters", field=field)


def _check_facts(facts: CaseFacts) -> None:
    if facts.age_years is not None and not 0 <= facts.age_years <= 120:
        raise InvalidInput("expected an age from 0 to 120 years", field="age_years")
    if facts.sex not in ("", "M", "F", "O"):
        raise InvalidInput("expected the sex as M, F or O, or none", field="sex")
    if facts.study_date and not re.fullmatch(r"(19|20)\d{6}", facts.study_date):
        raise InvalidInput("expected the study date as YYYYMMDD", field="study_date")
