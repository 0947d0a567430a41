"""What may enter an index: checks that every index makes before anything is stored or sent."""

from __future__ import annotations

import math
import re
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from nearcase.errors import InvalidInput
from nearcase.index.base import Payload, Point
from nearcase.index.fields import FIELDS, FieldKind
from nearcase.index.filters import check_value, is_unicode

if TYPE_CHECKING:
    from nearcase.types import Embedding

SHORTEST_LENGTH = 1e-6
"""Below this length a vector has no direction worth comparing, and its normalisation is rounding noise."""

UNIT_TOLERANCE = 1e-6
"""A vector this near unit length is stored bit for bit, so that export and import change nothing."""


def checked(points: Sequence[Point], dimension: int) -> list[Point]:
    """Returns the points with unit vectors, the last of each id, or refuses them all.

    Raises:
        InvalidInput: An id is not a UUID, a vector is unfit (see `unit`), or a payload value can not be stored.
    """
    latest = {_checked_id(point.point_id): point for point in points}
    for point in latest.values():
        check_payload(point.payload)
    return [replace(point, vector=unit(point.vector, dimension)) for point in latest.values()]


def unit(vector: Embedding, dimension: int) -> Embedding:
    """Returns the vector as (D,) float32 of unit length.

    Raises:
        InvalidInput: It has another shape or dimension, is not finite, or has no length.
    """
    array = np.asarray(vector, dtype=np.float32)
    if array.shape != (dimension,):
        raise InvalidInput(f"Expected a vector of shape ({dimension},), got {array.shape}.", field="vector")
    wide = array.astype(np.float64)
    length = math.sqrt(wide @ wide)  # squares of float32 numbers are finite where they are
    if not math.isfinite(length):
        raise InvalidInput("Expected a vector of finite numbers, got NaN or infinity in it.", field="vector")
    if length < SHORTEST_LENGTH:
        raise InvalidInput(f"Expected a vector with a direction, got one of length {length:.1e}.", field="vector")
    if abs(length - 1.0) <= UNIT_TOLERANCE:
        return np.ascontiguousarray(array)
    return (wide / length).astype(np.float32)


def check_ids(point_ids: Sequence[str]) -> None:
    """Refuses ids that no point can have.

    Raises:
        InvalidInput: One is not a UUID in canonical text.
    """
    for point_id in point_ids:
        _checked_id(point_id)


def check_limit(limit: int) -> None:
    """Refuses a limit below 1.

    Raises:
        InvalidInput: The limit is below 1.
    """
    if limit < 1:
        raise InvalidInput(f"Expected a limit of at least 1, got {limit}.", field="limit")


def check_keys(names: Iterable[str]) -> None:
    """Refuses payload keys that are no plain names: engines read dots and brackets in them as paths.

    Raises:
        InvalidInput: A key has other characters than ASCII letters, digits and _.
    """
    if not all(isinstance(name, str) and _KEY.fullmatch(name) for name in names):
        raise InvalidInput("Expected payload keys of ASCII letters, digits and _, got another.", field="payload")


_KEY = re.compile("[A-Za-z0-9_]+")


def check_facet(field: str) -> None:
    """Refuses to count the values of anything but a declared keyword field.

    Raises:
        InvalidInput: The field is another.
    """
    if FIELDS.get(field) is not FieldKind.KEYWORD:
        keywords = ", ".join(name for name, kind in FIELDS.items() if kind is FieldKind.KEYWORD)
        raise InvalidInput(f"Expected one of the fields {keywords}; got another name.", field="field")


def check_payload(payload: Payload) -> None:
    """Refuses values that an engine would drop, change or fail on halfway through a batch.

    Raises:
        InvalidInput: A declared field has the wrong type, or another value is not plain JSON.
    """
    check_keys(payload)
    for name, value in payload.items():
        if name in FIELDS and value is not None:
            # Only keyword fields hold lists: of two numbers, engines would test each bound of a range on either.
            many = value if isinstance(value, list) and FIELDS[name] is FieldKind.KEYWORD else [value]
            for item in many:
                check_value(name, item)
        elif not _is_json(value):
            raise InvalidInput(f"Expected plain JSON in every payload field, got {type(value).__name__} that is not.")


def _checked_id(point_id: str) -> str:
    try:
        canonical = str(uuid.UUID(point_id))
    except (ValueError, AttributeError, TypeError):
        canonical = ""
    if canonical != point_id:
        raise InvalidInput("Expected a UUID in lower case with hyphens, got another text.", field="point_id")
    return point_id


def _is_json(value: object) -> bool:
    match value:
        case None | bool():
            return True
        case str():
            return is_unicode(value)
        case int():
            return -(2**63) <= value < 2**63  # what engines store exactly
        case float():
            return bool(np.isfinite(value))
        case list():
            return all(isinstance(item, str) and is_unicode(item) for item in value)
        case dict():
            return all(isinstance(item, str) and is_unicode(item) for pair in value.items() for item in pair)
    return False
