"""The engine's calls in our words: one open shard, used by one thread of the index process.

Plain values go in and out (text, bytes, tuples, filters), so that this process loads neither numpy nor grpc: 16 MiB
instead of 44.
"""

from __future__ import annotations

import math
import os
import shutil
from array import array
from pathlib import Path
from typing import Any

import qdrant_edge as engine

from nearcase.index.edge_filters import compiled, field_indexes
from nearcase.index.filters import Filter

PlainPoint = tuple[str, bytes, dict[str, object]]  # id, float32 vector in machine order, payload
PlainRecord = tuple[str, dict[str, object], bytes | None]
PlainNeighbour = tuple[str, float, dict[str, object]]


class Shard:
    """A folder of points that is made when it is absent; whoever opens it holds the library's lock."""

    def __init__(self, folder: Path, dimension: int) -> None:
        if not folder.exists():
            _create(folder, dimension)
        self._shard = engine.EdgeShard.load(str(folder), _config(dimension))
        _index_fields(self._shard)  # those that this version declares and the one that made the library did not

    def upsert(self, points: list[PlainPoint]) -> None:
        """Stores the points and returns when they are on the disk."""
        made = [engine.Point(name, array("f", vector).tolist(), payload) for name, vector, payload in points]
        self._shard.update(engine.UpdateOperation.upsert_points(made))
        self._shard.flush()

    def search(self, vector: bytes, limit: int, where: Filter | None, without: tuple[str, ...]) -> list[PlainNeighbour]:
        """Returns (id, similarity, payload), most similar first, then by id."""
        query = engine.Query.Nearest(array("f", vector).tolist())
        best = self._ranked(query, limit, where)
        payloads = {name: payload for name, payload, _ in self.get([name for name, _ in best], without, False)}
        return [(name, similarity, payloads[name]) for name, similarity in best]

    def _ranked(self, query: engine.Query, limit: int, where: Filter | None) -> list[tuple[str, float]]:
        """Which of equal similarities the engine returns is chance, so all that tie with the last one are fetched."""
        total = self._shard.info().points_count
        wanted = limit + 8
        while True:
            scored = self._scored(query, min(wanted, total), where) if total else []
            if len(scored) < wanted or scored[-1][1] < scored[limit - 1][1]:
                return sorted(scored, key=lambda pair: (-pair[1], pair[0]))[:limit]
            wanted *= 4

    def _scored(self, query: engine.Query, limit: int, where: Filter | None) -> list[tuple[str, float]]:
        request = engine.QueryRequest(
            limit=limit,
            query=query,
            filter=_maybe(where),
            params=engine.SearchParams(exact=True),
            with_payload=False,
            with_vector=False,
        )
        scored = [(str(found.id), max(-1.0, min(1.0, found.score))) for found in self._shard.query(request)]
        if not all(math.isfinite(score) for _, score in scored):
            raise OSError("a stored vector is damaged")
        return scored

    def get(self, names: list[str], without: tuple[str, ...], with_vectors: bool) -> list[PlainRecord]:
        """Returns the points that exist, in the order asked."""
        found = self._shard.retrieve([*names], _payload(without), with_vectors)
        by_name = {str(record.id): _plain(record) for record in found}
        return [by_name[name] for name in names if name in by_name]

    def scroll(
        self, limit: int, cursor: str | None, where: Filter | None, without: tuple[str, ...]
    ) -> tuple[list[PlainRecord], str | None]:
        """Returns one page in the order of ids, and the id that the next starts with."""
        request = engine.ScrollRequest(
            offset=cursor, limit=limit, filter=_maybe(where), with_payload=_payload(without), with_vector=False
        )
        records, following = self._shard.scroll(request)
        return [_plain(record) for record in records], None if following is None else str(following)

    def count(self, where: Filter | None) -> int:
        """Returns how many points match."""
        return self._shard.count(engine.CountRequest(exact=True, filter=_maybe(where)))

    def facet(self, field: str, where: Filter | None, limit: int) -> list[tuple[str, int]]:
        """Returns (value, count), most frequent first, then by value."""
        hits = self._shard.facet(engine.FacetRequest(field, limit=limit, exact=True, filter=_maybe(where)))
        # The engine keeps naming values of which every point was deleted: erased patients among them.
        return [(str(hit.value), hit.count) for hit in hits.hits if hit.count]

    def delete(self, where: Filter) -> int:
        """Deletes what matches and returns how many that was, when the disk knows."""
        count = self.count(where)
        self._shard.update(engine.UpdateOperation.delete_points_by_filter(compiled(where)))
        self._shard.flush()
        return count

    def close(self) -> None:
        """Lets go of the files; everything acknowledged was flushed before."""
        self._shard.flush()
        self._shard.close()


def _create(folder: Path, dimension: int) -> None:
    """Makes the shard beside its place and moves it there whole, so that no half-made one is ever found."""
    unfinished = folder.with_name(folder.name + ".new")
    shutil.rmtree(unfinished, ignore_errors=True)
    shard = engine.EdgeShard.create(str(unfinished), _config(dimension))
    _index_fields(shard)
    shard.close()
    unfinished.rename(folder)
    descriptor = os.open(folder.parent, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def _index_fields(shard: engine.EdgeShard) -> None:
    for operation in field_indexes(shard.info().payload_schema):
        shard.update(operation)
    shard.flush()


def _config(dimension: int) -> engine.EdgeConfig:
    """Dot on unit vectors is the cosine, and leaves stored bits alone; nothing is ever hidden from search."""
    return engine.EdgeConfig(
        vectors=engine.EdgeVectorParams(size=dimension, distance=engine.Distance.Dot),
        optimizers=engine.EdgeOptimizersConfig(prevent_unoptimized=False),
        max_search_threads=1,  # one segment is searched by one thread; the default starts one per core
        wal_enabled=True,
    )


def _maybe(where: Filter | None) -> engine.Filter | None:
    return None if where is None else compiled(where)


def _payload(without: tuple[str, ...]) -> bool | engine.PayloadSelector:
    return engine.PayloadSelector.Exclude(list(without)) if without else True


def _plain(record: engine.Record) -> PlainRecord:
    vector: Any = record.vector
    return str(record.id), record.payload or {}, None if vector is None else array("f", vector).tobytes()
