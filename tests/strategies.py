"""Hypothesis strategies for payloads, filters and points: few values of each field, so that filters match some."""

from __future__ import annotations

import uuid

import numpy as np
from hypothesis import strategies as st

from nearcase.index.base import JsonValue, Payload, Point
from nearcase.index.fields import FIELDS, FieldKind
from nearcase.index.filters import And, Equals, Filter, In, Not, Or, Range, Scalar

NAMESPACE = uuid.UUID("6ba7b811-9dad-11d1-80b4-00c04fd430c8")

WORDS = ("CT", "MR", "M", "", "and", "a b", "Åse", "x=1", 'say "a\\b"', "O'NEIL", "melanoma=1", "melanoma=0", "a\nb")
NUMBERS = (-1.5, 0.0, 0.1 + 0.2, 0.3, 40.0, 41.0, 1e16, 1e-300)
DATES = (19000101, 20150228, 20150301, 20240229)

KEYWORDS = [name for name, kind in FIELDS.items() if kind is FieldKind.KEYWORD]
ORDERED = [name for name, kind in FIELDS.items() if kind is not FieldKind.KEYWORD]
SOME_FIELDS = ["modality", "sex", "labels", "flags", "source", "age_years", "study_date", "added_at_s"]
LISTS = ("labels", "flags")
OF_ALL = [*SOME_FIELDS, "tenant"]
"""With the one field that the text language has no word for."""


def point_id(number: int) -> str:
    """A UUID that is the same in every run."""
    return str(uuid.uuid5(NAMESPACE, str(number)))


def values(field: str) -> st.SearchStrategy[Scalar]:
    """Values that the declared field may hold."""
    if FIELDS[field] is FieldKind.KEYWORD:
        words = st.sampled_from(WORDS)
        return words.map(str.upper) if field in ("modality", "sex") else words
    return st.sampled_from(DATES if FIELDS[field] is FieldKind.INTEGER else NUMBERS)


def payloads() -> st.SearchStrategy[Payload]:
    """Some declared fields, each absent, null or filled, and one that is only returned."""
    fields: dict[str, st.SearchStrategy[JsonValue]] = {
        name: st.none() | values(name) for name in OF_ALL if name not in LISTS
    }
    fields |= {name: st.lists(st.sampled_from(WORDS), max_size=3) for name in LISTS}
    shown: dict[str, st.SearchStrategy[JsonValue]] = {"thumbnail": st.text(max_size=3)}
    return st.fixed_dictionaries(shown, optional=fields)


@st.composite
def _ranges(draw: st.DrawFn, single: bool) -> Filter:
    field = draw(st.sampled_from(["age_years", "study_date", "added_at_s"]))
    names = draw(
        st.lists(
            st.sampled_from(["at_least", "above", "at_most", "below"]),
            min_size=1,
            max_size=1 if single else 4,
            unique=True,
        )
    )
    return Range(field, **{name: draw(values(field)) for name in names})  # type: ignore[arg-type]


def filters(*, parsed: bool = False, tenants: bool = False) -> st.SearchStrategy[Filter]:
    """Filters that `check` accepts; with `parsed`, only those that the text language makes itself.

    With `tenants`, those too that only the server makes.
    """
    field = st.sampled_from(OF_ALL if tenants else SOME_FIELDS)
    equals = field.flatmap(lambda name: values(name).map(lambda value: Equals(name, value)))
    several = field.flatmap(
        lambda name: st.lists(values(name), min_size=1, max_size=3).map(lambda found: In(name, tuple(found)))
    )

    def grown(part: st.SearchStrategy[Filter]) -> st.SearchStrategy[Filter]:
        parts = st.lists(part, min_size=2 if parsed else 1, max_size=3).map(tuple)
        return st.one_of(part.map(Not), parts.map(And), parts.map(Or))

    return st.recursive(st.one_of(equals, several, _ranges(parsed)), grown, max_leaves=8)


def points(dimension: int, *, ids: int = 12) -> st.SearchStrategy[list[Point]]:
    """Points on the axes of the space, so that equal similarities are common and others are far apart."""
    axes = np.concatenate([np.eye(dimension, dtype=np.float32), -np.eye(dimension, dtype=np.float32)])
    one = st.builds(
        Point,
        point_id=st.integers(0, ids - 1).map(point_id),
        vector=st.integers(0, len(axes) - 1).map(lambda row: axes[row]),
        payload=payloads(),
    )
    return st.lists(one, max_size=ids)
