"""Whether an image can lie inside a finding's scope filter, by what is known of it before it is a case."""

from __future__ import annotations

import functools
from collections.abc import Mapping

from nearcase.index.filter_text import parse
from nearcase.index.filters import And, Filter, Not, Or, matches
from nearcase.types import CaseFacts

FIELDS = ("modality", "body_part", "laterality", "view", "sex", "age_years", "manufacturer", "device_model")
"""What of a filter is asked of an image. Labels, sources, dates and ids choose the evidence: a new image has no label
and no source, is made after every case, and its own patient is no reason to decide nothing."""


def may_hold(where: str, facts: CaseFacts) -> bool:
    """Returns False where the facts that are stated make the filter false, whatever the others are.

    Three values (Kleene 1938): a fact that is not stated makes its condition unknown, and so is what hangs on it.
    """
    known = {name: getattr(facts, name) for name in FIELDS}
    stated = {name: value for name, value in known.items() if value not in ("", None)}
    return _holds(_parsed(where), stated) is not False


@functools.lru_cache(256)
def _parsed(where: str) -> Filter:
    return parse(where)


def _holds(where: Filter, stated: Mapping[str, object]) -> bool | None:
    match where:
        case And(parts):
            found = {_holds(part, stated) for part in parts}
            return False if False in found else None if None in found else True
        case Or(parts):
            found = {_holds(part, stated) for part in parts}
            return True if True in found else None if None in found else False
        case Not(part):
            inner = _holds(part, stated)
            return None if inner is None else not inner
        case _:
            return matches(where, stated) if where.field in stated else None
