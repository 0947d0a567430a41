"""What a person or a table adds to what a file states: kept apart from it, so that it can be corrected later.

What the file states always wins; of what was given, the newest wins.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from nearcase.types import Case, CaseFacts

_NAMES = tuple(each.name for each in dataclasses.fields(CaseFacts))
_EMPTY = ("", None)


@dataclass(frozen=True, slots=True)
class Annotations:
    """Labels, facts and source that were given besides a file."""

    labels: Mapping[str, str] = field(default_factory=dict)
    facts: CaseFacts = field(default_factory=CaseFacts)
    source: str = ""


def annotate(case: Case, given: Annotations) -> Case:
    """Returns a case that says no more than its file, with what was given where the file is silent."""
    facts = fill(case.facts, given.facts)
    names = tuple(name for name in _NAMES if getattr(facts, name) != getattr(case.facts, name))
    return replace(case, facts=facts, given=names, labels=dict(given.labels), source=given.source)


def given_to(case: Case) -> Annotations:
    """Returns what was given to a case: the part of it that its file does not state."""
    facts = CaseFacts(**{name: getattr(case.facts, name) for name in case.given})
    return Annotations(case.labels, facts, case.source)


def as_stated(case: Case) -> Case:
    """Returns the case as its file states it."""
    blank = {name: getattr(CaseFacts(), name) for name in case.given}
    return replace(case, facts=replace(case.facts, **blank), given=(), labels={}, source="")


def renew(old: Annotations, new: Annotations) -> Annotations:
    """Returns the old annotations, each replaced where the new ones say something."""
    return Annotations({**old.labels, **new.labels}, fill(new.facts, old.facts), new.source or old.source)


def fill(first: CaseFacts, second: CaseFacts) -> CaseFacts:
    """Returns the first facts, with the second where the first are silent."""
    missing = {name: getattr(second, name) for name in _NAMES if getattr(first, name) in _EMPTY}
    return replace(first, **missing)
