"""The embedded index: qdrant-edge in a child process of its own, behind one lock.

A small library is searched exactly. A large one is a small active shard, searched exactly, and sealed ones with a graph
over int8 codes, of which the best are scored again with full vectors. A write is on the disk before it returns.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from nearcase.errors import Unready
from nearcase.index.base import Erased, IndexState, Neighbour, Page, Part, Point, Record
from nearcase.index.edge.additions import Additions, completed
from nearcase.index.edge.keeper import Keeper
from nearcase.index.edge.opening import FOLDER
from nearcase.index.edge.owner import Owner
from nearcase.index.edge.plan import Sizes
from nearcase.index.edge.roster import SEALED
from nearcase.index.filters import Filter, check
from nearcase.index.points import check_facet, check_ids, check_keys, check_limit, checked, unit

if TYPE_CHECKING:
    from nearcase.index.edge.shard import PlainPoint
    from nearcase.types import Embedding

T = TypeVar("T")

CLOSE_LIMIT_S = 5.0
"""How long `close` waits for the running call and the last flush before it kills."""


class EdgeIndex:
    """One library in one folder; made by `open`.

    Calls queue for one thread, which talks to the process: awaiting never blocks the event loop, and a call that is
    cancelled while it queues is never made. If the process dies, the call that finds it so raises Unready and the next
    one starts it again.
    """

    def __init__(self, folder: Path, dimension: int, sizes: Sizes) -> None:
        self._dimension = dimension
        self._queue = ThreadPoolExecutor(max_workers=1, thread_name_prefix="nearcase-index")
        self._owner = Owner(folder, dimension, sizes.exact_candidates)
        self._keeper = Keeper(self._ask_in_turn, folder / FOLDER, dimension, sizes)
        self._writing = asyncio.Lock()
        self._additions = Additions(folder, self._owner, self._run)

    @classmethod
    async def open(cls, folder: Path, dimension: int, sizes: Sizes | None = None) -> EdgeIndex:
        """Returns the index in an existing folder; makes it when the folder holds none.

        Raises:
            Unready: Another process has it open, or all of it is damaged, or the disk refuses.
        """
        index = cls(folder, dimension, sizes or Sizes())
        try:
            await index._run(index._owner.claim)
            await index._run(index._owner.running)
            await index._additions.open()
        except BaseException:
            await index.close()
            raise
        index._keeper.start()
        return index

    @property
    def process_id(self) -> int | None:
        """The process that holds the library, for memory figures and the curious; None while none runs."""
        return self._owner.process_id

    @property
    def builder_id(self) -> int | None:
        """The process that seals or rewrites shards; None while none runs."""
        return self._keeper.builder_id

    async def upsert(self, points: Sequence[Point]) -> None:
        """Stores or replaces the points, all or none; on the disk when it returns."""
        if points:
            plain: list[PlainPoint] = [
                (p.point_id, p.vector.tobytes(), dict(p.payload)) for p in checked(points, self._dimension)
            ]
            async with self._writing:
                await completed(self._additions.store(plain))
            self._keeper.nudge()

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
        return (await self.search_batch([vector], limit=limit, where=where, without=without, exact=exact))[0]

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
        check_limit(limit)
        check_keys(without)
        _check_filter(where)
        queries = [unit(vector, self._dimension).tobytes() for vector in vectors]
        found = await self._run(lambda: self._owner.ask("search", queries, limit, where, tuple(without), exact))
        return [[Neighbour(*plain) for plain in ranked] for ranked in found]

    async def get(self, point_ids: Sequence[str], *, with_vectors: bool = False) -> list[Record]:
        """Returns the points that exist, in the order asked."""
        check_ids(point_ids)
        return await self._run(lambda: _records(self._owner.ask("get", list(point_ids), (), with_vectors)))

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
        _check_filter(where)
        arguments = (limit, cursor, where, tuple(without), with_vectors)
        plain, following = await self._run(lambda: self._owner.ask("scroll", *arguments))
        return Page(tuple(_records(plain)), following)

    def count(self, where: Filter | None = None) -> Awaitable[int]:
        """Returns how many points match, exactly."""
        _check_filter(where)
        # Without a turn where it is known: every search asks for one. A write that goes on decides the order itself.
        known: int | None = None if self._writing.locked() else self._owner.known("count", where)
        if known is None:
            return self._ask_in_turn("count", where)
        finished: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        finished.set_result(known)
        return finished

    async def facet(self, field: str, *, where: Filter | None = None, limit: int = 100) -> dict[str, int]:
        """Returns how many points have each value, most frequent first, then by value."""
        check_facet(field)
        check_limit(limit)
        _check_filter(where)
        return dict(await self._run(lambda: self._owner.ask("facet", field, where, limit)))

    async def delete(self, where: Filter) -> int:
        """Deletes what matches, on the disk too when it returns, and returns how many points that was.

        Raises:
            Unready: A part is damaged, so that what it holds would come back with it; or the disk refuses.
        """
        check(where)
        async with self._writing:
            await completed(self._additions.settle())
            count: int = await self._run(lambda: self._owner.write("delete", where))
        return count

    async def erase(self, point_ids: Sequence[str]) -> Erased:
        """Deletes the points that exist and returns when no file holds a byte of them, nor of any deleted before.

        The points are gone for every other call at once; rewriting takes seconds for a small library, and as long
        as sealing did for a large part. If the caller goes away, or the server ends, it is done all the same.

        Raises:
            Unready: A part is damaged, or there is no room to rewrite one.
        """
        check_ids(point_ids)
        names = list(dict.fromkeys(point_ids))
        async with self._writing:
            await completed(self._additions.settle())
            count, is_owed, is_job_lost = await self._run(lambda: self._owner.write("erase", names))
        if is_job_lost:
            self._keeper.interrupt()
        if is_owed:
            await self._keeper.settled()
        return Erased(point_count=count, is_rewritten=True)

    async def state(self) -> IndexState:
        """Returns what the library is made of now."""
        found = await self._ask_in_turn("parts")
        parts = tuple(Part(name, kind, count, kind != SEALED) for name, kind, count, *_, bad in found if not bad)
        return IndexState(
            tier="edge",
            parts=parts,
            damaged=tuple(name for name, *_, bad in found if bad),
            is_building=self._keeper.is_building,
            started_count=self._owner.started_count,
            problem=self._keeper.problem,
        )

    async def generation(self) -> str | None:
        """Returns None: nobody else writes here."""
        return None

    async def close(self) -> None:
        """Ends the processes within CLOSE_LIMIT_S; queued and further calls raise Unready."""
        if self._owner.is_closed:
            return
        self._owner.is_closed = True
        stopping = asyncio.ensure_future(self._keeper.stop())
        ending = asyncio.get_running_loop().run_in_executor(self._queue, self._owner.end)
        try:
            await self._ended(ending, stopping)
        finally:
            self._owner.let_go()

    async def _ended(self, ending: asyncio.Future[bool], stopping: asyncio.Future[None]) -> None:
        both: set[asyncio.Future[Any]] = {ending, stopping}
        try:
            await asyncio.wait(both, timeout=CLOSE_LIMIT_S)
        finally:
            if not ending.done():
                self._owner.kill()
            self._queue.shutdown(wait=False)
        is_clean = await ending
        await stopping
        await self._additions.close(is_clean=is_clean)

    async def _ask_in_turn(self, operation: str, *arguments: object) -> Any:
        return await self._run(lambda: self._owner.ask(operation, *arguments))

    async def _run(self, work: Callable[[], T]) -> T:
        if self._owner.is_closed:
            raise Unready("The index is closed.")
        return await asyncio.get_running_loop().run_in_executor(self._queue, work)


def _check_filter(where: Filter | None) -> None:
    if where is not None:
        check(where)


def _records(plain: Sequence[tuple[str, dict[str, Any], bytes | None]]) -> list[Record]:
    return [
        Record(name, payload, None if vector is None else np.frombuffer(vector, dtype=np.float32).copy())
        for name, payload, vector in plain
    ]
