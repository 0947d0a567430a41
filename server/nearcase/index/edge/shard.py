"""The engine's calls in our words: one open shard, used by one thread of the index process.

Plain values go in and out (text, bytes, tuples, filters), so that this process loads neither numpy nor grpc: 16 MiB
instead of 44.
"""

from __future__ import annotations

import math
import os
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import qdrant_edge as engine

from nearcase.index.complement import parted
from nearcase.index.edge.engine import config, index_fields
from nearcase.index.edge.filters import compiled, is_linked
from nearcase.index.edge.roster import SEALED
from nearcase.index.edge.whole import check_growing, check_sealed
from nearcase.index.filters import And, Filter

PlainPoint = tuple[str, bytes, dict[str, object]]  # id, float32 vector in machine order, payload
PlainRecord = tuple[str, dict[str, object], bytes | None]
PlainNeighbour = tuple[str, float, dict[str, object]]
Scored = list[tuple[str, float]]

EFFORT, EFFORT_ACROSS = 160, 96
"""hnsw_ef where the graph is linked along the filter; and where it is not, and the search looks two links far (ACORN).
Measured over 100 000 clustered vectors of 1024: recall@10 1.000 at 0.5 ms of CPU, and 1.000 at 3 to 6 ms, where the
graph alone found 0.83 to 0.98."""

NEARLY_ALL = 0.8
"""Share of a shard from which a filter hardly matters to the graph: of 99.997 %, recall@10 was 1.000 without ACORN."""

GRAPH_MOST = 1000
"""Neighbours above which every candidate is scored: a walk that long visits much of the graph."""

_OVERSAMPLING = 2.0
"""How many times the neighbours asked are scored again with full vectors: int8 codes alone misorder near equals."""


class Shard:
    """An open folder of points; whoever opens it holds the library's lock."""

    def __init__(self, folder: Path, dimension: int, kind: str, exact_candidates: int) -> None:
        check_sealed(folder, dimension)
        self._shard = engine.EdgeShard.load(str(folder), config(dimension, kind))
        self._is_graph = kind == SEALED
        self._exact_candidates = exact_candidates
        check_growing(folder, dimension)
        index_fields(self._shard)
        self._is_flushed = True
        # Both since the last write: people search on and on under one filter.
        self._counts: dict[Filter, int] = {}
        self._walks: dict[Filter, _Walk | None] = {}
        self.point_count = self._counted()
        if self._is_graph:
            _prefetch(folder)

    def upsert(self, points: Sequence[PlainPoint]) -> None:
        """Stores the points, which survive this process from then on, and power loss after `flush`."""
        made = [engine.Point(name, array("f", vector).tolist(), payload) for name, vector, payload in points]
        self._forget()
        self._is_flushed = False
        self._shard.update(engine.UpdateOperation.upsert_points(made))
        self.point_count = self._counted()

    def delete(self, names: Sequence[str]) -> None:
        """Deletes the points; as durable as what `upsert` stored."""
        self._forget()
        self._is_flushed = False
        self._shard.update(engine.UpdateOperation.delete_points([*names]))
        self.point_count = self._counted()

    def flush(self) -> None:
        """Returns when everything is on the disk."""
        if not self._is_flushed:
            self._shard.flush()
            self._is_flushed = True

    def nearest(self, vectors: Sequence[bytes], limit: int, where: Filter | None, exact: bool) -> list[Scored]:
        """Returns for each vector (id, similarity), most similar first, then by id."""
        if not self.point_count:
            return [[] for _ in vectors]
        queries = [engine.Query.Nearest(array("f", vector).tolist()) for vector in vectors]
        condition = _maybe(where)
        walk = None if exact or not self._is_graph else self._walk(where, condition)
        wanted = limit + 8
        firsts = self._scored(queries, wanted, condition, walk)
        return [
            self._with_ties(query, first, limit, condition, walk) for query, first in zip(queries, firsts, strict=True)
        ]

    def _with_ties(
        self, query: engine.Query, scored: Scored, limit: int, condition: engine.Filter | None, walk: _Walk | None
    ) -> Scored:
        """Which of equal similarities the engine returns is chance, so all that tie with the last one are fetched."""
        wanted = limit + 8
        while len(scored) >= wanted and scored[-1][1] >= scored[limit - 1][1]:
            wanted *= 4
            (scored,) = self._scored([query], wanted, condition, walk)
        return sorted(scored, key=lambda pair: (-pair[1], pair[0]))[:limit]

    def _walk(self, where: Filter | None, condition: engine.Filter | None) -> _Walk | None:
        """How to search the graph; None where every candidate is scored instead."""
        if where is None:
            return EFFORT, False
        if where not in self._walks:
            if len(self._walks) >= _COUNTS_KEPT:
                self._walks.clear()
            self._walks[where] = self._chosen_walk(where, condition)
        return self._walks[where]

    def _chosen_walk(self, where: Filter, condition: engine.Filter | None) -> _Walk | None:
        candidates = self._shard.count(engine.CountRequest(exact=False, filter=condition))
        if candidates <= self._exact_candidates:
            return None
        if candidates >= NEARLY_ALL * self.point_count or is_linked(where):
            return EFFORT, False
        return EFFORT_ACROSS, True

    def _scored(
        self, queries: list[engine.Query], wanted: int, condition: engine.Filter | None, walk: _Walk | None
    ) -> list[Scored]:
        limit = min(wanted, self.point_count)
        params = engine.SearchParams(exact=True) if walk is None or limit > GRAPH_MOST else _params(limit, walk)
        requests = [
            engine.QueryRequest(
                limit=limit, query=query, filter=condition, params=params, with_payload=False, with_vector=False
            )
            for query in queries
        ]
        if len(requests) == 1:
            return [_plain_scores(self._shard.query(requests[0]))]
        return [_plain_scores(found) for found in self._shard.query_batch(engine.QueryBatchRequest(requests))]

    def held(self, names: Sequence[str]) -> list[str]:
        """Returns those of the ids that are here."""
        if not self.point_count:
            return []
        return [str(record.id) for record in self._shard.retrieve([*names], False, False)]

    def get(self, names: Sequence[str], without: tuple[str, ...], with_vectors: bool) -> dict[str, PlainRecord]:
        """Returns the points that exist, by id."""
        found = self._shard.retrieve([*names], _payload(without), with_vectors)
        return {str(record.id): _plain(record) for record in found}

    def names(self, limit: int, cursor: str | None, where: Filter | None) -> list[str]:
        """Returns up to `limit` ids from the cursor on, in their order."""
        request = engine.ScrollRequest(
            offset=cursor, limit=limit, filter=_maybe(where), with_payload=False, with_vector=False
        )
        return [str(record.id) for record in self._shard.scroll(request)[0]]

    def page(self, limit: int, cursor: str | None) -> tuple[list[PlainPoint], str | None]:
        """Returns whole points in the order of ids, and the id that the next page starts with."""
        request = engine.ScrollRequest(offset=cursor, limit=limit, with_payload=True, with_vector=True)
        records, following = self._shard.scroll(request)
        points = [(str(r.id), array("f", _vector(r)).tobytes(), r.payload or {}) for r in records]
        return points, None if following is None else str(following)

    def count(self, where: Filter | None) -> int:
        """Returns how many points match."""
        if where is None:
            return self.point_count
        asked, left_out = parted(where)
        found = self.point_count if asked is None else self._counted_once(asked)
        if left_out is None or not found:
            return found
        return found - self._counted_once(left_out if asked is None else And((asked, left_out)))

    def facet(self, field: str, where: Filter | None) -> dict[str, int]:
        """Returns how many points have each value."""
        request = engine.FacetRequest(field, limit=_EVERY_VALUE, exact=True, filter=_maybe(where))
        # The engine keeps naming values of which every point was deleted: erased patients among them.
        return {str(hit.value): hit.count for hit in self._shard.facet(request).hits if hit.count}

    def has_graph_over_all(self) -> bool:
        """Whether every point is in the graph, as a builder has to leave it."""
        return bool(self._shard.info().indexed_vectors_count >= self.point_count)

    def close(self) -> None:
        """Lets go of the files; everything acknowledged was flushed before."""
        self._shard.flush()
        self._shard.close()

    def _forget(self) -> None:
        self._counts.clear()
        self._walks.clear()

    def _counted_once(self, where: Filter) -> int:
        if where not in self._counts:
            if len(self._counts) >= _COUNTS_KEPT:
                self._counts.clear()
            self._counts[where] = self._counted(where)
        return self._counts[where]

    def _counted(self, where: Filter | None = None) -> int:
        return self._shard.count(engine.CountRequest(exact=True, filter=_maybe(where)))


_Walk = tuple[int, bool]  # effort, and whether to look across points that the filter leaves out

_EVERY_VALUE = 2**31
_COUNTS_KEPT = 256


def _params(limit: int, walk: _Walk) -> engine.SearchParams:
    effort, is_across = walk
    return engine.SearchParams(
        hnsw_ef=max(effort, 2 * limit),
        quantization=engine.QuantizationSearchParams(rescore=True, oversampling=_OVERSAMPLING),
        acorn=engine.AcornSearchParams(enable=True, max_selectivity=1.0) if is_across else None,
    )


def _plain_scores(found: Sequence[engine.ScoredPoint]) -> Scored:
    scored = [(str(point.id), max(-1.0, min(1.0, point.score))) for point in found]
    if not all(math.isfinite(score) for _, score in scored):
        raise OSError("a stored vector is damaged")
    return scored


def _prefetch(folder: Path) -> None:
    """Asks the kernel to read what every search reads, so that the first ones do not wait for the disk one by one."""
    if not hasattr(os, "posix_fadvise"):
        return
    for file in folder.glob("segments/*/vector_storage/quantized.data"):
        descriptor = os.open(file, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_WILLNEED)
        os.close(descriptor)


def _maybe(where: Filter | None) -> engine.Filter | None:
    return None if where is None else compiled(where)


def _payload(without: tuple[str, ...]) -> bool | engine.PayloadSelector:
    return engine.PayloadSelector.Exclude(list(without)) if without else True


def _plain(record: engine.Record) -> PlainRecord:
    vector: Any = record.vector
    return str(record.id), record.payload or {}, None if vector is None else array("f", vector).tobytes()


def _vector(record: engine.Record) -> Any:
    if record.vector is None:
        raise OSError("a stored vector is missing")
    return record.vector
