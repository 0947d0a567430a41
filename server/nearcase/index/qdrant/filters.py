"""Filters in the words of the Qdrant client."""

from __future__ import annotations

from typing import Any

from qdrant_client import models

from nearcase.index.fields import FIELDS, FieldKind
from nearcase.index.filters import And, Equals, Filter, In, Not, Or, Range, Scalar


def compiled(where: Filter) -> models.Filter:
    """Returns the server's filter with the meaning of `filters.matches`; the filter has been checked."""
    match where:
        case And(parts):
            return models.Filter(must=[compiled(part) for part in parts])
        case Or(parts):
            return models.Filter(should=[compiled(part) for part in parts])
        case Not(part):
            return models.Filter(must_not=[compiled(part)])
        case Equals(field, value):
            return _one_of(field, (value,))
        case In(field, values):
            return _one_of(field, values)
        case Range():
            return models.Filter(must=_bounds(where))


def fields_of(where: Filter) -> frozenset[str]:
    """Returns the fields that a filter asks about."""
    match where:
        case And(parts) | Or(parts):
            return frozenset().union(*(fields_of(part) for part in parts))
        case Not(part):
            return fields_of(part)
        case Equals(field) | In(field) | Range(field):
            return frozenset({field})


def _one_of(field: str, values: tuple[Scalar, ...]) -> models.Filter:
    """The server matches text and integers; a float equals a value when it lies between it and itself."""
    if FIELDS[field] is not FieldKind.NUMBER:
        accepted: list[Any] = list(values)
        return models.Filter(must=[models.FieldCondition(key=field, match=models.MatchAny(any=accepted))])
    exactly = [Range(field, at_least=float(value), at_most=float(value)) for value in values]
    return models.Filter(should=[compiled(one) for one in exactly])


def _bounds(bounds: Range) -> list[Any]:
    """Inclusive and exclusive bounds apart: in one condition the engine drops one of two bounds on the same side."""
    pairs = []
    if bounds.at_least is not None or bounds.at_most is not None:
        pairs.append(models.Range(gte=bounds.at_least, lte=bounds.at_most))
    if bounds.above is not None or bounds.below is not None:
        pairs.append(models.Range(gt=bounds.above, lt=bounds.below))
    return [models.FieldCondition(key=bounds.field, range=pair) for pair in pairs]
