"""The filter language as values: what a search, count or erasure is limited to.

    Filter = Equals | In | Range | And | Or | Not

`matches` is the meaning that every index must reproduce: a missing field matches nothing, so `Not` of a condition on a
missing field is true; of a list, any element may match.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import NoReturn

from nearcase.index.fields import FIELDS, FieldKind

Scalar = str | int | float

MAX_DEPTH = 100
"""Levels of And, Or and Not; far more than a person writes, far fewer than the stack holds."""

LARGEST_INTEGER = 2**53
"""Engines compare ranges as 64 bit floats, which are exact up to here."""


@dataclass(frozen=True, slots=True)
class Equals:
    """The field has this value."""

    field: str
    value: Scalar


@dataclass(frozen=True, slots=True)
class In:
    """The field has one of these values."""

    field: str
    values: tuple[Scalar, ...]


@dataclass(frozen=True, slots=True)
class Range:
    """The number in the field keeps every bound that is given."""

    field: str
    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None


@dataclass(frozen=True, slots=True)
class And:
    """Every part matches."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """At least one part matches."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The part does not match; true where its field is missing."""

    part: Filter


Filter = Equals | In | Range | And | Or | Not


def matches(where: Filter, payload: Mapping[str, object]) -> bool:
    """Returns whether a payload is what the filter asks for: the reference that engines are tested against."""
    match where:
        case Equals(field, value):
            return any(found == value for found in _values(payload, field))
        case In(field, values):
            return any(found in values for found in _values(payload, field))
        case Range(field):
            return any(_within(where, found) for found in _values(payload, field))
        case And(parts):
            return all(matches(part, payload) for part in parts)
        case Or(parts):
            return any(matches(part, payload) for part in parts)
        case Not(part):
            return not matches(part, payload)


def _values(payload: Mapping[str, object], field: str) -> list[object]:
    value = payload.get(field)
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _within(bounds: Range, value: object) -> bool:
    return (
        isinstance(value, int | float)
        and (bounds.at_least is None or value >= bounds.at_least)
        and (bounds.above is None or value > bounds.above)
        and (bounds.at_most is None or value <= bounds.at_most)
        and (bounds.below is None or value < bounds.below)
    )


def check(where: Filter) -> None:
    """Refuses a filter that an engine could not answer quickly and exactly.

    Raises:
        InvalidInput: A field is not declared, a value has the wrong type, a group or range is empty, or the filter is
            nested deeper than MAX_DEPTH.
    """
    _check(where, MAX_DEPTH)


def _check(where: Filter, levels: int) -> None:
    if levels == 0:
        _refuse(f"Expected a filter nested at most {MAX_DEPTH} levels deep, got a deeper one.")
    match where:
        case Equals(field, value):
            check_value(field, value)
        case In(field, values):
            _check_filled(len(values), f"a value in the list for {_declared(field)}")
            for value in values:
                check_value(field, value)
        case Range():
            _check_range(where)
        case And(parts) | Or(parts):
            _check_filled(len(parts), f"a condition in {type(where).__name__}")
            for part in parts:
                _check(part, levels - 1)
        case Not(part):
            _check(part, levels - 1)
        case _:
            _refuse(f"Expected a filter, got {type(where).__name__}.")


def check_value(field: str, value: object) -> None:
    """Refuses a value that the declared field can not hold.

    Raises:
        InvalidInput: The field is not declared or the value has the wrong type.
    """
    kind = FIELDS[_declared(field)]
    if kind is FieldKind.KEYWORD:
        valid = isinstance(value, str) and is_unicode(value)
    elif kind is FieldKind.INTEGER:
        valid = isinstance(value, int) and not isinstance(value, bool) and abs(value) <= LARGEST_INTEGER
    else:
        valid = _is_finite(value)
    if not valid:
        _refuse(f"Expected {_EXPECTED[kind]} for {field}, got {_described(value)}.")


_EXPECTED = {
    FieldKind.KEYWORD: "text in Unicode",
    FieldKind.INTEGER: "a whole number of at most 2^53",
    FieldKind.NUMBER: "a finite number",
}


def is_date(number: int) -> bool:
    """Returns whether a whole number is a day of the calendar as YYYYMMDD (PS3.5 section 6.2, VR DA)."""
    try:
        date(number // 10000, number // 100 % 100, number % 100)
    except (ValueError, OverflowError):
        return False
    return True


def _check_range(where: Range) -> None:
    if FIELDS[_declared(where.field)] is FieldKind.KEYWORD:
        _refuse(f"Expected = , != or in for {where.field}, which holds text; got a range.")
    bounds = [b for b in (where.at_least, where.above, where.at_most, where.below) if b is not None]
    _check_filled(len(bounds), f"a bound in the range of {where.field}")
    for bound in bounds:
        check_value(where.field, bound)


def _check_filled(count: int, what: str) -> None:
    """An empty group is a mistake of the caller: read as "everything" it would erase a library."""
    if count == 0:
        _refuse(f"Expected at least {what}, got none.")


def _declared(field: str) -> str:
    if field not in FIELDS:
        _refuse(f"Expected one of the fields {', '.join(FIELDS)}; got another name.")
    return field


def _is_finite(value: object) -> bool:
    """Says no to bool, NaN, infinities and integers that floats do not hold."""
    if isinstance(value, int):
        return not isinstance(value, bool) and abs(value) <= LARGEST_INTEGER
    return isinstance(value, float) and math.isfinite(value)


def is_unicode(text: str) -> bool:
    """Returns whether the text has no lone surrogates, which command lines can carry and no engine stores."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _described(value: object) -> str:
    """The type only: the value could be a patient's."""
    return f"{type(value).__name__} out of range" if isinstance(value, int | float | str) else type(value).__name__


def _refuse(message: str) -> NoReturn:
    # Imported here because the index process reads filters too, and errors brings grpc: 13 MB and 50 ms.
    from nearcase.errors import InvalidInput

    raise InvalidInput(message, field="filter")
