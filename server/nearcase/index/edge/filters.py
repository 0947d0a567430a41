"""Filters and fields in the words of qdrant-edge; runs in the index process."""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache
from typing import Any

import qdrant_edge as engine

from nearcase.index.fields import FIELDS, FieldKind
from nearcase.index.filters import And, Equals, Filter, In, Not, Or, Range, Scalar


@lru_cache(maxsize=256)  # every search of a library leaves out the same cases
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


LINKED = frozenset({"modality", "body_part", "tenant"})
"""Fields along which a graph gets links of its own; each costs build time, and these are what most filters name."""


def field_indexes(present: Collection[str]) -> list[engine.UpdateOperation]:
    """Returns the operations that index every declared field that is not indexed yet; the indexes stay on the disk."""
    make = engine.UpdateOperation.create_field_index
    return [make(name, _schema(name, kind)) for name, kind in FIELDS.items() if name not in present]


def _schema(name: str, kind: FieldKind) -> Any:
    return _SCHEMAS[kind](enable_hnsw=name in LINKED, memory=engine.Memory.Cold)


_SCHEMAS = {
    FieldKind.KEYWORD: engine.KeywordIndexParams,
    FieldKind.INTEGER: engine.IntegerIndexParams,
    FieldKind.NUMBER: engine.FloatIndexParams,
}


def is_linked(where: Filter) -> bool:
    """Returns whether a graph is linked along everything that the filter asks for."""
    return isinstance(where, Equals | In) and where.field in LINKED


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
