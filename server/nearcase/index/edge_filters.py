"""Filters and fields in the words of qdrant-edge; runs in the index process."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import qdrant_edge as engine

from nearcase.index.fields import FIELDS, FieldKind
from nearcase.index.filters import And, Equals, Filter, In, Not, Or, Range, Scalar


def compiled(where: Filter) -> engine.Filter:
    """Returns the engine's filter with the meaning of `filters.matches`; the filter has been checked."""
    match where:
        case And(parts):
            return engine.Filter(must=[compiled(part) for part in parts])
        case Or(parts):
            return engine.Filter(should=[compiled(part) for part in parts])
        case Not(part):
            return engine.Filter(must_not=[compiled(part)])
        case Equals(field, value):
            return _one_of(field, (value,))
        case In(field, values):
            return _one_of(field, values)
        case Range():
            return engine.Filter(must=_bounds(where))


def field_indexes(present: Collection[str]) -> list[engine.UpdateOperation]:
    """Returns the operations that index every declared field that is not indexed yet."""
    make = engine.UpdateOperation.create_field_index
    return [make(name, _SCHEMAS[kind]) for name, kind in FIELDS.items() if name not in present]


_SCHEMAS = {
    FieldKind.KEYWORD: engine.PayloadSchemaType.Keyword,
    FieldKind.INTEGER: engine.PayloadSchemaType.Integer,
    FieldKind.NUMBER: engine.PayloadSchemaType.Float,
}


def _one_of(field: str, values: tuple[Scalar, ...]) -> engine.Filter:
    """The engine matches text and integers; a float equals a value when it lies between it and itself."""
    if FIELDS[field] is not FieldKind.NUMBER:
        accepted: list[Any] = list(values)
        return engine.Filter(must=[engine.FieldCondition(field, match=engine.MatchAny(accepted))])
    exactly = [Range(field, at_least=float(value), at_most=float(value)) for value in values]
    return engine.Filter(should=[compiled(one) for one in exactly])


def _bounds(bounds: Range) -> list[Any]:
    """Inclusive and exclusive bounds apart: in one condition the engine drops one of two bounds on the same side."""
    pairs = []
    if bounds.at_least is not None or bounds.at_most is not None:
        pairs.append(engine.RangeFloat(gte=bounds.at_least, lte=bounds.at_most))
    if bounds.above is not None or bounds.below is not None:
        pairs.append(engine.RangeFloat(gt=bounds.above, lt=bounds.below))
    return [engine.FieldCondition(bounds.field, range=pair) for pair in pairs]
