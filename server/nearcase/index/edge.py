"""The embedded index: qdrant-edge in a child process of its own, behind one lock.

Search is exact: no graph is built, every candidate is scored. A write is on the disk before it returns.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from nearcase.errors import InvalidInput, Unready
from nearcase.index.base import Neighbour, Page, Point, Record
from nearcase.index.edge_link import IndexProcess, LinkDown
from nearcase.index.edge_process import CLOSE, DONE, REFUSED
from nearcase.index.filters import Filter, check
from nearcase.index.points import check_facet, check_ids, check_keys, check_limit, checked, unit

if TYPE_CHECKING:
    from nearcase.types import Embedding

T = TypeVar("T")

CLOSE_LIMIT_S = 5.0
"""How long `close` waits for the running call and the last flush before it kills."""

DISK_RESERVE_MIB = 256
"""Free space that a write must leave: the engine writes through mapped files, and a full disk kills it in mid-write."""


class EdgeIndex:
    """One library in one folder; made by `open`.

    Calls queue for one thread, which talks to the process: awaiting never blocks the event loop, and a call that is
    cancelled while it queues is never made. If the process dies, the call that finds it so raises Unready and the next
    one starts it again.
    """

    def __init__(self, folder: Path, dimension: int) -> None:
        self._folder = folder
        self._dimension = dimension
        self._queue = ThreadPoolExecutor(max_workers=1, thread_name_prefix="nearcase-index")
        self._process: IndexProcess | None = None
        self._closed = False

    @classmethod
    async def open(cls, folder: Path, dimension: int) -> EdgeIndex:
        """Returns the index in an existing folder; makes it when the folder holds none.

        Raises:
            Unready: Another process has it open, or it is damaged, or the disk refuses.
        """
        index = cls(folder, dimension)
        try:
            await index._run(index._running)
        except BaseException:
            await index.close()
            raise
        return index

    @property
    def process_id(self) -> int | None:
        """The process that holds the library, for memory figures and the curious; None while none runs."""
        return None if self._process is None else self._process.pid

    async def upsert(self, points: Sequence[Point]) -> None:
        """Stores or replaces the points, all or none; on the disk when it returns."""
        if points:
            await self._run(lambda: self._upsert(points))

    def _upsert(self, points: Sequence[Point]) -> None:
        plain = [(p.point_id, p.vector.tobytes(), dict(p.payload)) for p in checked(points, self._dimension)]
        self._check_disk(sum(len(vector) for _, vector, _ in plain))
        self._ask("upsert", plain)

    async def search(
        self, vector: Embedding, *, limit: int, where: Filter | None = None, without: Sequence[str] = ()
    ) -> list[Neighbour]:
        """Returns the nearest points, most similar first, then by id."""
        check_limit(limit)
        check_keys(without)
        _check_filter(where)
        query = unit(vector, self._dimension).tobytes()
        found = await self._run(lambda: self._ask("search", query, limit, where, tuple(without)))
        return [Neighbour(name, similarity, payload) for name, similarity, payload in found]

    async def get(self, point_ids: Sequence[str], *, with_vectors: bool = False) -> list[Record]:
        """Returns the points that exist, in the order asked."""
        check_ids(point_ids)
        return await self._run(lambda: _records(self._ask("get", list(point_ids), (), with_vectors)))

    async def scroll(
        self, *, limit: int, cursor: str | None = None, where: Filter | None = None, without: Sequence[str] = ()
    ) -> Page:
        """Returns one page of points in the order of their ids, starting at the cursor."""
        check_limit(limit)
        check_keys(without)
        check_ids([cursor] if cursor is not None else [])
        _check_filter(where)
        plain, following = await self._run(lambda: self._ask("scroll", limit, cursor, where, tuple(without)))
        return Page(tuple(_records(plain)), following)

    async def count(self, where: Filter | None = None) -> int:
        """Returns how many points match, exactly."""
        _check_filter(where)
        count: int = await self._run(lambda: self._ask("count", where))
        return count

    async def facet(self, field: str, *, where: Filter | None = None, limit: int = 100) -> dict[str, int]:
        """Returns how many points have each value, most frequent first, then by value."""
        check_facet(field)
        check_limit(limit)
        _check_filter(where)
        return dict(await self._run(lambda: self._ask("facet", field, where, limit)))

    async def delete(self, where: Filter) -> int:
        """Deletes what matches, on the disk too when it returns, and returns how many points that was."""
        check(where)
        count: int = await self._run(lambda: self._ask("delete", where))
        return count

    async def close(self) -> None:
        """Ends the process within CLOSE_LIMIT_S; queued and further calls raise Unready."""
        if self._closed:
            return
        self._closed = True
        ending = asyncio.get_running_loop().run_in_executor(self._queue, self._end)
        try:
            await asyncio.wait({ending}, timeout=CLOSE_LIMIT_S)
        finally:
            if not ending.done() and self._process is not None:
                self._process.kill()
            self._queue.shutdown(wait=False)
        await ending

    async def _run(self, work: Callable[[], T]) -> T:
        if self._closed:
            raise Unready("The index is closed.")
        return await asyncio.get_running_loop().run_in_executor(self._queue, work)

    # What follows runs in the queue's thread.

    def _ask(self, operation: str, *arguments: object) -> Any:
        process = self._running()
        try:
            outcome, value = process.ask(operation, arguments)
        except LinkDown:
            self._discard(process)
            raise Unready(
                f"The index process ended before it answered {operation}; repeat the call, which starts it again.",
                reason="INDEX_PROCESS_ENDED",
            ) from None
        if outcome == DONE:
            return value
        if outcome == REFUSED:
            raise InvalidInput(f"The index engine can not read this {operation}: {value}.")
        self._discard(process)  # what it holds in memory after a failure is not to be trusted; the disk is
        raise Unready(f"The index engine failed in {operation}: {value}.")

    def _running(self) -> IndexProcess:
        if self._closed:
            raise Unready("The index is closed.")
        return self._process or self._started()

    def _started(self) -> IndexProcess:
        try:
            self._process = process = IndexProcess(self._folder, self._dimension)
        except OSError as error:
            raise Unready(f"The index process can not be started: {error.strerror}.") from error
        try:
            outcome, value = process.answer()
        except LinkDown:
            outcome, value = "", f"the index process ended over it, with {self._free_mib()} MiB of disk free"
        if outcome == DONE:
            return process
        self._discard(process)
        raise Unready(f"The library in {self._folder} can not be opened: {value}.")

    def _discard(self, process: IndexProcess) -> None:
        process.kill()
        process.release()
        self._process = None

    def _end(self) -> None:
        process = self._process
        if process is None:
            return
        try:
            process.ask(CLOSE, ())
        except LinkDown:
            process.kill()
        process.release()
        self._process = None

    def _check_disk(self, size_bytes: int) -> None:
        free_mib = self._free_mib()
        if free_mib < DISK_RESERVE_MIB + 4 * size_bytes // 2**20:
            raise Unready(
                f"Expected {DISK_RESERVE_MIB} MiB of free disk to add to, got {free_mib} MiB.", reason="DISK_FULL"
            )

    def _free_mib(self) -> int:
        try:
            return shutil.disk_usage(self._folder).free // 2**20
        except OSError:
            return 0  # the folder is gone


def _check_filter(where: Filter | None) -> None:
    if where is not None:
        check(where)


def _records(plain: Sequence[tuple[str, dict[str, Any], bytes | None]]) -> list[Record]:
    return [
        Record(name, payload, None if vector is None else np.frombuffer(vector, dtype=np.float32).copy())
        for name, payload, vector in plain
    ]
