"""Searches of a collection on a Qdrant server: when every candidate is scored, and how ties are settled."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from qdrant_client import AsyncQdrantClient, models

from nearcase.errors import Unready
from nearcase.index.base import Neighbour
from nearcase.index.filters import Filter, check
from nearcase.index.qdrant.calls import Calls
from nearcase.index.qdrant.filters import compiled, fields_of
from nearcase.index.qdrant.layout import EXACT_UP_TO, LINKED, Layout

if TYPE_CHECKING:
    from nearcase.types import Embedding

T = TypeVar("T")

QUERIES = 64
"""Queries in one message."""

EF = 128
"""Candidates that the graph keeps in a search: recall 0.99 over 100 000 vectors of 1024."""

OVERSAMPLING = 2.0
"""How many times the limit the codes propose, for the originals to rescore."""

TIE_ROOM = 8
"""Neighbours beyond the limit that are fetched, to see whether the last one ties."""

TIES_IN_A_GRAPH = 4096
"""Ties that are fetched from a graph, which does not promise to find them all."""

EXACTLY = models.SearchParams(exact=True, quantization=models.QuantizationSearchParams(ignore=True))
"""Scores every candidate, by the originals."""


class QdrantSearch:
    """Searches and counts in one collection."""

    def __init__(self, client: AsyncQdrantClient, calls: Calls, layout: Layout) -> None:
        self._client, self._calls, self._layout = client, calls, layout

    async def nearest(
        self, queries: Sequence[Embedding], limit: int, where: Filter | None, without: Sequence[str], *, exact: bool
    ) -> list[list[Neighbour]]:
        """Returns the nearest points of each unit vector, most similar first, then by id."""
        params = EXACTLY if exact else await self._params(where, limit)
        asked = _Asked(limit, maybe(where), params, selected(without), is_slow=exact)
        return [ranked for part in parts(queries, QUERIES) for ranked in await self._ranked(part, asked)]

    async def about(self, where: Filter | None) -> int:
        """Returns about how many points match, which costs the server next to nothing."""
        query = maybe(where)
        return await self._calls.read("count", lambda left_s: self._counted(query, False, left_s))

    async def count(self, where: Filter | None) -> int:
        """Returns how many points match, exactly."""
        query = maybe(where)
        return await self._calls.read_all("count", lambda left_s: self._counted(query, True, left_s))

    async def _counted(self, query: models.Filter | None, exact: bool, left_s: int) -> int:
        name = self._layout.collection
        return (await self._client.count(name, count_filter=query, exact=exact, timeout=left_s)).count

    async def _params(self, where: Filter | None, limit: int) -> models.SearchParams:
        """Small sets of candidates are scored one by one; ACORN only where a field has no links in the graph."""
        if await self.about(where) <= EXACT_UP_TO:
            return EXACTLY
        is_linked = where is None or fields_of(where) <= LINKED
        is_coded = self._layout.quantization != "none"
        return models.SearchParams(
            hnsw_ef=max(EF, 2 * limit),
            exact=False,
            quantization=models.QuantizationSearchParams(rescore=True, oversampling=OVERSAMPLING) if is_coded else None,
            acorn=None if is_linked else models.AcornSearchParams(enable=True),
        )

    async def _ranked(self, queries: Sequence[Embedding], asked: _Asked) -> list[list[Neighbour]]:
        """Which of equal similarities the engine returns is chance, so all that tie with the last one are fetched."""
        ranked: list[list[Neighbour]] = [[] for _ in queries]
        waiting, wanted = list(range(len(queries))), asked.limit + TIE_ROOM
        most = math.inf if asked.params.exact else max(wanted, TIES_IN_A_GRAPH)
        while waiting:
            answers = await self._query([queries[number] for number in waiting], wanted, asked)
            tied = []
            for number, found in zip(waiting, answers, strict=True):
                if len(found) == wanted < most and found[-1].similarity >= found[asked.limit - 1].similarity:
                    tied.append(number)
                else:
                    ranked[number] = sorted(found, key=lambda one: (-one.similarity, one.point_id))[: asked.limit]
            waiting, wanted = tied, int(min(4 * wanted, most))
        return ranked

    async def _query(self, queries: Sequence[Embedding], limit: int, asked: _Asked) -> list[list[Neighbour]]:
        requests = [
            models.QueryRequest(
                query=vector.tolist(),
                filter=asked.query,
                params=asked.params,
                limit=limit,
                with_payload=asked.payload,
            )
            for vector in queries
        ]
        reading = self._calls.read_all if asked.is_slow else self._calls.read
        name = self._layout.collection
        answers = await reading(
            "search", lambda left_s: self._client.query_batch_points(name, requests, timeout=left_s)
        )
        return [[_neighbour(point) for point in answer.points] for answer in answers]


@dataclass(frozen=True, slots=True)
class _Asked:
    limit: int
    query: models.Filter | None
    params: models.SearchParams
    payload: bool | models.PayloadSelectorExclude
    is_slow: bool  # may take as long as a write, because the caller wants every candidate scored


def parts(items: Sequence[T], size: int) -> Iterator[list[T]]:
    """Returns the items in lists of at most `size`."""
    for start in range(0, len(items), size):
        yield list(items[start : start + size])


def maybe(where: Filter | None) -> models.Filter | None:
    """Returns the server's filter.

    Raises:
        InvalidInput: `check` refuses the filter.
    """
    if where is None:
        return None
    check(where)
    return compiled(where)


def selected(without: Sequence[str]) -> bool | models.PayloadSelectorExclude:
    """Returns which payload the server sends."""
    return models.PayloadSelectorExclude(exclude=list(without)) if without else True


def _neighbour(point: models.ScoredPoint) -> Neighbour:
    if not math.isfinite(point.score):
        raise Unready("A stored vector on the Qdrant server is damaged; restore the collection.", reason="INDEX_FAILED")
    return Neighbour(str(point.id), max(-1.0, min(1.0, point.score)), point.payload or {})
