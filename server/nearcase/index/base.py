"""The Index seam: points in, the nearest points out. `exact` is the oracle that every other index must equal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from nearcase.index.filters import Filter
    from nearcase.types import Embedding

JsonValue = str | int | float | bool | None | list[str] | dict[str, str]
Payload = Mapping[str, JsonValue]
"""What is stored beside a vector: the declared fields of `index/fields.py`, and others that are only returned."""


@dataclass(frozen=True, slots=True)
class Point:
    """One vector to store."""

    point_id: str  # UUID, canonical text
    vector: Embedding
    payload: Payload


@dataclass(frozen=True, slots=True)
class Neighbour:
    """One stored point near the query."""

    point_id: str
    similarity: float  # cosine, -1 to 1
    payload: Payload


@dataclass(frozen=True, slots=True)
class Record:
    """One stored point as `get` and `scroll` return it."""

    point_id: str
    payload: Payload
    vector: Embedding | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a scroll, in the order of point ids."""

    records: tuple[Record, ...]
    next_cursor: str | None  # the point id that the next page starts with


class Index(Protocol):
    """Stores points durably and finds the nearest.

    What `upsert` or `delete` returned from survives `kill -9` and power loss. Ties in similarity are ordered by point
    id. Every method raises InvalidInput for a filter, id or limit that can not be, and Unready after `close`.
    """

    async def upsert(self, points: Sequence[Point]) -> None:
        """Stores or replaces the points, all or none.

        Raises:
            InvalidInput: A vector has another dimension, is not finite, or has no length.
            Unready: The disk or the engine refused, and nothing is stored; or the engine died in this call, and all or
                nothing is. Repeating the call is safe.
        """
        ...

    async def search(
        self,
        vector: Embedding,
        *,
        limit: int,
        where: Filter | None = None,
        without: Sequence[str] = (),
    ) -> list[Neighbour]:
        """Returns the nearest points, most similar first; payload keys named in `without` are left out."""
        ...

    async def get(self, point_ids: Sequence[str], *, with_vectors: bool = False) -> list[Record]:
        """Returns the points that exist, in the order asked; absent ids are left out."""
        ...

    async def scroll(
        self, *, limit: int, cursor: str | None = None, where: Filter | None = None, without: Sequence[str] = ()
    ) -> Page:
        """Returns one page of points in the order of their ids, starting at the cursor."""
        ...

    async def count(self, where: Filter | None = None) -> int:
        """Returns how many points match, exactly."""
        ...

    async def facet(self, field: str, *, where: Filter | None = None, limit: int = 100) -> dict[str, int]:
        """Returns how many points have each value of a declared keyword field, most frequent first."""
        ...

    async def delete(self, where: Filter) -> int:
        """Deletes what matches and returns how many points that was."""
        ...

    async def close(self) -> None:
        """Flushes and lets go of the files; further calls raise Unready."""
        ...
