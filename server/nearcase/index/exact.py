"""Brute force in memory: the oracle that every other index must equal, written to be read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from copy import deepcopy
from typing import TYPE_CHECKING

import numpy as np

from nearcase.errors import Unready
from nearcase.index.base import Erased, IndexState, Neighbour, Page, Part, Payload, Point, Record
from nearcase.index.filters import Filter, check, matches
from nearcase.index.points import check_facet, check_ids, check_keys, check_limit, checked, unit

if TYPE_CHECKING:
    from nearcase.types import Embedding


class ExactIndex:
    """Keeps everything in this process's memory; nothing survives it."""

    def __init__(self, dimension: int) -> None:
        self._dimension = dimension
        self._points: dict[str, Point] | None = {}

    async def upsert(self, points: Sequence[Point]) -> None:
        """Stores or replaces the points, all or none."""
        stored = self._open()
        for point in checked(points, self._dimension):
            stored[point.point_id] = Point(point.point_id, point.vector, deepcopy(dict(point.payload)))

    async def search(
        self,
        vector: Embedding,
        *,
        limit: int,
        where: Filter | None = None,
        without: Sequence[str] = (),
        exact: bool = False,
    ) -> list[Neighbour]:
        """Returns the nearest points, most similar first, then by id."""
        check_limit(limit)
        check_keys(without)
        query = unit(vector, self._dimension)
        found = self._matching(where)
        if not found:
            return []
        similarities = _similarities(np.stack([point.vector for point in found]), query)
        ranked = sorted(zip(similarities, found, strict=True), key=lambda pair: (-pair[0], pair[1].point_id))
        return [Neighbour(p.point_id, similarity, _cut(p.payload, without)) for similarity, p in ranked[:limit]]

    async def search_batch(
        self,
        vectors: Sequence[Embedding],
        *,
        limit: int,
        where: Filter | None = None,
        without: Sequence[str] = (),
        exact: bool = False,
    ) -> list[list[Neighbour]]:
        """Returns what `search` returns for each vector."""
        self._matching(where)  # refuses what can not be asked even of no vectors
        return [await self.search(v, limit=limit, where=where, without=without, exact=exact) for v in vectors]

    async def get(self, point_ids: Sequence[str], *, with_vectors: bool = False) -> list[Record]:
        """Returns the points that exist, in the order asked."""
        check_ids(point_ids)
        stored = self._open()
        found = [stored[point_id] for point_id in point_ids if point_id in stored]
        return [_record(point, (), with_vectors) for point in found]

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
        check_limit(limit)
        check_keys(without)
        check_ids([cursor] if cursor is not None else [])
        found = [point for point in self._matching(where) if cursor is None or point.point_id >= cursor]
        records = tuple(_record(point, without, with_vectors) for point in found[:limit])
        return Page(records, found[limit].point_id if len(found) > limit else None)

    async def count(self, where: Filter | None = None) -> int:
        """Returns how many points match."""
        return len(self._matching(where))

    async def facet(self, field: str, *, where: Filter | None = None, limit: int = 100) -> dict[str, int]:
        """Returns how many points have each value, most frequent first, then by value."""
        check_facet(field)
        check_limit(limit)
        counts = Counter(value for point in self._matching(where) for value in _keywords(point.payload.get(field)))
        return dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:limit])

    async def delete(self, where: Filter) -> int:
        """Deletes what matches and returns how many points that was."""
        gone = self._matching(where)
        for point in gone:
            del self._open()[point.point_id]
        return len(gone)

    async def erase(self, point_ids: Sequence[str]) -> Erased:
        """Deletes the points that exist; there are no files to rewrite."""
        check_ids(point_ids)
        stored = self._open()
        gone = [point_id for point_id in dict.fromkeys(point_ids) if point_id in stored]
        for point_id in gone:
            del stored[point_id]
        return Erased(point_count=len(gone), is_rewritten=True)

    async def state(self) -> IndexState:
        """Returns that everything is in memory."""
        return IndexState(tier="memory", parts=(Part("memory", "active", len(self._open()), is_exact=True),))

    async def generation(self) -> str | None:
        """Returns None: nobody else writes here."""
        return None

    async def close(self) -> None:
        """Forgets everything; further calls raise Unready."""
        self._points = None

    def _open(self) -> dict[str, Point]:
        if self._points is None:
            raise Unready("The index is closed.")
        return self._points

    def _matching(self, where: Filter | None) -> list[Point]:
        """In the order of ids."""
        if where is not None:
            check(where)
        return [p for _, p in sorted(self._open().items()) if where is None or matches(where, p.payload)]


def _record(point: Point, without: Sequence[str], with_vectors: bool) -> Record:
    return Record(point.point_id, _cut(point.payload, without), point.vector.copy() if with_vectors else None)


def _similarities(matrix: Embedding, query: Embedding) -> list[float]:
    """(N, D) and (D,) to N cosines; summed row by row, so that equal rows have equal similarities."""
    products = matrix.astype(np.float64) * query.astype(np.float64)
    return [float(value) for value in np.clip(products.sum(axis=1), -1.0, 1.0).astype(np.float32)]


def _keywords(value: object) -> Iterable[str]:
    if isinstance(value, list):
        return set(value)
    return [value] if isinstance(value, str) else []


def _cut(payload: Payload, without: Sequence[str] = ()) -> Payload:
    return {name: deepcopy(value) for name, value in payload.items() if name not in without}
