"""The index on a Qdrant server or cluster: one class for both, with another layout of the collection.

Up to EXACT_UP_TO candidates every one is scored; beyond, the graph finds them. Other nearcase servers may share the
collection, with the same encoder.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from qdrant_client import AsyncQdrantClient, models

from nearcase.index.base import Erased, IndexState, Neighbour, Page, Part, Point, Record
from nearcase.index.filters import Filter, check
from nearcase.index.points import check_facet, check_ids, check_keys, check_limit, checked, unit
from nearcase.index.qdrant.calls import Call, Calls, unreachable
from nearcase.index.qdrant.connection import connect
from nearcase.index.qdrant.filters import compiled
from nearcase.index.qdrant.identity import Identity
from nearcase.index.qdrant.layout import EXACT_UP_TO, Layout, ensure
from nearcase.index.qdrant.marks import Marks
from nearcase.index.qdrant.search import QdrantSearch, maybe, parts, selected

if TYPE_CHECKING:
    from nearcase.settings import Settings
    from nearcase.types import Embedding

BATCH = 256
"""Points in one message: 1.3 MB of vectors of 1280, and some MB with thumbnails."""

DELETE_ATTEMPTS = 3

_DELETED = models.WriteOrdering.STRONG
_WRITTEN = models.WriteOrdering.MEDIUM  # one leader for each shard: two writers of a point end the same everywhere


class QdrantIndex:
    """One library in one collection; made by `open` or `reach`.

    A write is acknowledged when every live replica, and at least as many as the layout's write_consistency says, has
    it in its log. It is not one transaction: a write that raises Unready may be done in part, and is done whole by
    repeating it.
    """

    def __init__(self, client: AsyncQdrantClient, calls: Calls, marks: Marks, layout: Layout, dimension: int) -> None:
        self._client, self._calls, self._marks = client, calls, marks
        self._name, self._dimension = layout.collection, dimension
        self._let_go: Callable[[], None] | None = None
        self._search = QdrantSearch(client, calls, layout)

    @classmethod
    async def reach(
        cls, settings: Settings, identity: Identity, let_go: Callable[[], None] | None = None
    ) -> QdrantIndex:
        """Returns the library on the server that the settings name; `close` calls `let_go`.

        Raises:
            Unready: As `open` does, or a file that the settings name can not be read.
        """
        calls = Calls(read_limit_s=settings.qdrant_read_timeout_s, write_limit_s=settings.qdrant_timeout_s)
        index = await cls.open(connect(settings), calls, Layout.of(settings), identity)
        index._let_go = let_go
        return index

    @classmethod
    async def open(cls, client: AsyncQdrantClient, calls: Calls, layout: Layout, identity: Identity) -> QdrantIndex:
        """Returns the library in the collection, which is made when it is absent; the client is ours from now on.

        Raises:
            Unready: The server is not there or refuses, or the collection does not fit (see `layout.ensure`).
        """
        marks = Marks(client, calls, layout.collection)
        try:
            await ensure(client, calls, layout, identity)
            await marks.open(replicas=layout.replicas, write_consistency=layout.write_consistency)
        except BaseException:
            await client.close()
            raise
        return cls(client, calls, marks, layout, identity.dimension)

    async def generation(self) -> str | None:
        """Returns the name of the collection's state, which every server that writes to it moves."""
        return await self._marks.name()

    async def upsert(self, points: Sequence[Point]) -> None:
        """Stores or replaces the points; all are checked before the first is sent."""
        fit = checked(points, self._dimension)
        if not fit:
            return
        async with self._marks.change():
            for part in parts(fit, BATCH):
                made = [
                    models.PointStruct(id=p.point_id, vector=p.vector.tolist(), payload=dict(p.payload)) for p in part
                ]
                await self._write("upsert", partial(self._put, made))

    async def _put(self, made: list[models.PointStruct], left_s: int) -> models.UpdateResult:
        return await self._client.upsert(self._name, made, wait=True, ordering=_WRITTEN, timeout=left_s)

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
        (found,) = await self.search_batch([vector], limit=limit, where=where, without=without, exact=exact)
        return found

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
        check_limit(limit)
        check_keys(without)
        queries = [unit(vector, self._dimension) for vector in vectors]
        return await self._search.nearest(queries, limit, where, without, exact=exact)

    async def get(self, point_ids: Sequence[str], *, with_vectors: bool = False) -> list[Record]:
        """Returns the points that exist, in the order asked; of no ids, only asks whether the server reads."""
        check_ids(point_ids)
        if not point_ids:
            await self._search.about(None)
            return []
        found = await self._retrieve(list(dict.fromkeys(point_ids)), True, with_vectors)
        by_id = {record.point_id: record for record in found}
        return [by_id[point_id] for point_id in point_ids if point_id in by_id]

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
        reading = self._calls.read_all if with_vectors else self._calls.read  # an export's pages are large
        records, following = await reading(
            "scroll",
            lambda left_s: self._client.scroll(
                self._name,
                scroll_filter=maybe(where),
                limit=limit,
                offset=cursor,
                with_payload=selected(without),
                with_vectors=with_vectors,
                timeout=left_s,
            ),
        )
        return Page(tuple(_record(record) for record in records), None if following is None else str(following))

    async def count(self, where: Filter | None = None) -> int:
        """Returns how many points match, exactly."""
        return await self._search.count(where)

    async def facet(self, field: str, *, where: Filter | None = None, limit: int = 100) -> dict[str, int]:
        """Returns how many points have each value, most frequent first, then by value."""
        check_facet(field)
        check_limit(limit)
        query = maybe(where)
        answer = await self._calls.read_all(
            "facet",
            lambda left_s: self._client.facet(
                self._name, field, facet_filter=query, limit=limit, exact=True, timeout=left_s
            ),
        )
        # The engine keeps naming values of which every point was deleted: erased patients among them.
        counts = {str(hit.value): hit.count for hit in answer.hits if hit.count}
        return dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))

    async def delete(self, where: Filter) -> int:
        """Deletes what matches, asks whether anything still does, and returns how many points that was."""
        check(where)
        count = await self.count(where)
        if count:
            selector = models.FilterSelector(filter=compiled(where))
            async with self._marks.change():
                for _ in range(DELETE_ATTEMPTS):
                    await self._delete(selector)
                    if not await self.count(where):
                        return count
                raise unreachable("delete", "points are found again after it")
        return count

    async def erase(self, point_ids: Sequence[str]) -> Erased:
        """Deletes the points that exist, and asks for each again; the server rewrites its files when it will."""
        check_ids(point_ids)
        stored = [record.point_id for record in await self._retrieve(list(dict.fromkeys(point_ids)), False, False)]
        if stored:
            async with self._marks.change():
                await self._erase(stored)
        return Erased(len(stored), is_rewritten=False)

    async def state(self) -> IndexState:
        """Returns what the collection is made of now."""
        info = await self._calls.read("the state", lambda _: self._client.get_collection(self._name))
        count = await self.count()
        part = Part(self._name, "collection", count, count <= EXACT_UP_TO)
        return IndexState(
            tier="qdrant",
            parts=(part,),
            damaged=(self._name,) if info.status is models.CollectionStatus.RED else (),
            is_building=info.status is models.CollectionStatus.YELLOW,
            is_shared=True,
        )

    async def close(self) -> None:
        """Lets go of the server; further calls raise Unready."""
        self._calls.close()
        await self._client.close()
        if self._let_go is not None:
            self._let_go()
            self._let_go = None

    async def _retrieve(self, point_ids: Sequence[str], with_payload: bool, with_vectors: bool) -> list[Record]:
        async def read(part: list[str], left_s: int) -> list[models.Record]:
            client, name = self._client, self._name
            return await client.retrieve(
                name, part, with_payload=with_payload, with_vectors=with_vectors, timeout=left_s
            )

        found: list[Record] = []
        for part in parts(point_ids, BATCH):
            found += [_record(record) for record in await self._calls.read("get", partial(read, part))]
        return found

    async def _erase(self, point_ids: Sequence[str]) -> None:
        left = list(point_ids)
        for _ in range(DELETE_ATTEMPTS):
            for part in parts(left, BATCH):
                await self._delete(models.PointIdsList(points=list(part)))
            left = [record.point_id for record in await self._retrieve(left, False, False)]
            if not left:
                return
        raise unreachable("erase", "points are found again after it")

    async def _delete(self, selector: models.FilterSelector | models.PointIdsList) -> None:
        await self._write(
            "delete",
            lambda left_s: self._client.delete(self._name, selector, wait=True, ordering=_DELETED, timeout=left_s),
        )

    async def _write(self, what: str, call: Call[models.UpdateResult]) -> None:
        result = await self._calls.write(what, call)
        if result.status is not models.UpdateStatus.COMPLETED:
            raise unreachable(what, "it was taken in and not done in time")


def _record(record: models.Record) -> Record:
    vector = None if record.vector is None else np.asarray(record.vector, dtype=np.float32)
    return Record(str(record.id), record.payload or {}, vector)
