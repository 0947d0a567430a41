"""The Index seam: points in, the nearest points out. `exact` is the oracle that every other index must equal."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
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


@dataclass(frozen=True, slots=True)
class Erased:
    """What `erase` did."""

    point_count: int
    is_rewritten: bool  # True: no byte of the points is left in this index's files; False: a server rewrites later


@dataclass(frozen=True, slots=True)
class Part:
    """One part of an index, as people see it."""

    name: str
    kind: str  # active, frozen, plain or sealed; collection on a server
    point_count: int
    is_exact: bool  # whether every search of it scores every candidate


@dataclass(frozen=True, slots=True)
class IndexState:
    """What an index is made of now."""

    tier: str  # memory, edge or qdrant
    parts: tuple[Part, ...]
    damaged: tuple[str, ...] = ()  # names of parts that can not be read; what is whole goes on being served
    is_building: bool = False  # a part is being sealed or rewritten
    is_shared: bool = False  # other processes may write to it too
    started_count: int = 0  # how often its process was started; 0 where it has none
    problem: str = ""  # why sealing or rewriting does not go on, in one line; "" while all is well

    @property
    def is_exact(self) -> bool:
        """Whether every search is exact."""
        return all(part.is_exact for part in self.parts)


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
                nothing is; or a Qdrant server did, and some may be. Repeating the call is safe.
        """
        ...

    async def search(
        self,
        vector: Embedding,
        *,
        limit: int,
        where: Filter | None = None,
        without: Sequence[str] = (),
        exact: bool = False,
    ) -> list[Neighbour]:
        """Returns the nearest points, most similar first; payload keys named in `without` are left out.

        Args:
            vector: What they are near to.
            limit: How many.
            where: Which points may be found.
            without: Keys of the payload to leave out.
            exact: Score every candidate, even where a graph would find nearly the same ones sooner.
        """
        ...

    async def search_batch(
        self,
        vectors: Sequence[Embedding],
        *,
        limit: int,
        where: Filter | None = None,
        without: Sequence[str] = (),
        exact: bool = False,
    ) -> list[list[Neighbour]]:
        """Returns what `search` returns for each vector, in one call."""
        ...

    async def get(self, point_ids: Sequence[str], *, with_vectors: bool = False) -> list[Record]:
        """Returns the points that exist, in the order asked; absent ids are left out."""
        ...

    async def scroll(
        self,
        *,
        limit: int,
        cursor: str | None = None,
        where: Filter | None = None,
        without: Sequence[str] = (),
        with_vectors: bool = False,
    ) -> Page:
        """Returns one page of points in the order of their ids, starting at the cursor."""
        ...

    def count(self, where: Filter | None = None) -> Awaitable[int]:
        """Returns how many points match, exactly; where that is known without asking anybody, a finished future."""
        ...

    async def facet(self, field: str, *, where: Filter | None = None, limit: int = 100) -> dict[str, int]:
        """Returns how many points have each value of a declared keyword field, most frequent first."""
        ...

    async def delete(self, where: Filter) -> int:
        """Deletes what matches and returns how many points that was."""
        ...

    async def erase(self, point_ids: Sequence[str]) -> Erased:
        """Deletes the points that exist, and rewrites the files that held them; searches go on meanwhile.

        So are the files that held what `delete` and `upsert` took away before; without ids it does only that.

        Raises:
            Unready: A part is damaged, so that nothing can be proven; or the engine ended, and repeating is safe.
        """
        ...

    async def state(self) -> IndexState:
        """Returns what the index is made of now."""
        ...

    async def generation(self) -> str | None:
        """Returns the name of the points' state where other processes write too, and None where nobody else does.

        Equal names mean equal points. While somebody writes, each call returns a name that never comes again.
        """
        ...

    async def close(self) -> None:
        """Flushes and lets go of the files; further calls raise Unready."""
        ...
