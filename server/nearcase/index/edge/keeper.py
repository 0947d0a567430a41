"""The background work of one embedded library: seals and merges shards, and rewrites those that an erasure waits for.

A second process builds; this task carries the points to it, a page at a time between searches, and swaps the result in.
Whatever fails leaves the library as it was, and is tried again after a pause.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from nearcase.errors import NearcaseError, Unready
from nearcase.index.edge.additions import completed
from nearcase.index.edge.link import BuilderProcess, LinkDown
from nearcase.index.edge.owner import DISK_RESERVE_MIB, JobFailed
from nearcase.index.edge.plan import Job, ShardState, Sizes, next_job, wants_freeze
from nearcase.index.edge.process import DONE

T = TypeVar("T")

Ask = Callable[..., Awaitable[Any]]

PAGE_POINTS = 50
"""Points carried at once: 2 ms of the index process for 1024 numbers each, which a search may have to wait."""

PAUSES_S = (1.0, 5.0, 30.0, 120.0, 600.0)
"""After the first failure, the second, ..., and every further one."""

PATIENCE = 3
"""Failures in a row after which an erasure that waits is told so."""

_NUDGE_S = 0.25

DISK_FACTOR = 2
"""Free disk that a rewriting needs, in sizes of its sources: for new files, the engine's log, and temporary ones."""


class Keeper:
    """Runs beside one `EdgeIndex`, on its event loop; its slow calls have a thread of their own.

    Args:
        ask: Sends an operation to the index process.
        root: The folder of shards.
        dimension: Length of the embeddings.
        sizes: When to do what.
    """

    def __init__(self, ask: Ask, root: Path, dimension: int, sizes: Sizes) -> None:
        self._ask = ask
        self._root = root
        self._dimension = dimension
        self._sizes = sizes
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="nearcase-builder")
        self._awake = asyncio.Event()
        self._waiting: list[asyncio.Future[None]] = []
        self._leftovers: set[str] = set()
        self._builder: BuilderProcess | None = None
        self._task: asyncio.Task[None] | None = None
        self._failures = 0
        self._nudged_s = 0.0
        self._is_interrupted = False
        self.is_building = False
        self.problem = ""

    @property
    def builder_id(self) -> int | None:
        """The process that builds now, if one does."""
        return None if self._builder is None else self._builder.pid

    def start(self) -> None:
        """Begins with what an earlier process left to do."""
        self._task = asyncio.get_running_loop().create_task(self._keep())

    def nudge(self) -> None:
        """Tells that something was written; of many in a moment the first is enough, and the rest shows the last."""
        now_s = asyncio.get_running_loop().time()
        if now_s - self._nudged_s >= _NUDGE_S:
            self._nudged_s = now_s
            self._awake.set()

    def interrupt(self) -> None:
        """Gives up the building that runs, because what it builds from is no longer wanted."""
        self._is_interrupted = self.is_building
        if self._builder is not None:
            self._builder.kill()

    async def settled(self) -> None:
        """Returns when no erasure is owed a rewriting any more, and the old files are gone.

        Raises:
            Unready: It failed several times in a row; it goes on being tried.
        """
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        self._failures = 0
        self._awake.set()
        await future

    async def stop(self) -> None:
        """Ends the building that runs, which is begun anew another time."""
        if self._task is not None:
            self._task.cancel()
            self.interrupt()
            with suppress(asyncio.CancelledError):
                await self._task
        self._thread.shutdown(wait=False)
        self._tell(self._waiting, Unready("The index is closed."))

    async def _keep(self) -> None:
        is_resting = False
        while True:
            try:
                worked = await self._step(is_resting=is_resting)
            except (JobFailed, NearcaseError, OSError) as error:
                if not self._is_interrupted:
                    await self._pause(error)
                continue
            finally:
                self._is_interrupted = False
            self._failures, self.problem = 0, ""
            if not worked:
                is_resting = not await self._woken(None if is_resting else self._sizes.rest_s)

    async def _woken(self, limit_s: float | None) -> bool:
        try:
            async with asyncio.timeout(limit_s):  # wait_for may swallow the cancelling of this task
                await self._awake.wait()
        except TimeoutError:
            return False
        self._awake.clear()
        return True

    async def _pause(self, error: Exception) -> None:
        self.problem = " ".join(str(error).split())[:300]
        pause_s = PAUSES_S[min(self._failures, len(PAUSES_S) - 1)]
        self._failures += 1
        if self._failures >= PATIENCE:
            message = f"The points are deleted, but the files that held them are not rewritten yet: {self.problem}"
            self._tell(self._waiting, Unready(message))
        until = asyncio.get_running_loop().time() + pause_s
        while (rest_s := until - asyncio.get_running_loop().time()) > 0:
            if await self._woken(rest_s) and self._waiting:
                return

    async def _step(self, *, is_resting: bool) -> bool:
        """Does one thing and returns whether there was one."""
        self._waiting = [future for future in self._waiting if not future.done()]
        waiting = list(self._waiting)  # who comes later may be owed more than the states tell
        await self._sweep()
        states = await self._states()
        if wants_freeze(states, self._sizes, is_resting=is_resting):
            await self._ask("freeze")
            states = await self._states()
        job = next_job(states, self._sizes, self._dimension, is_resting=is_resting)
        if job is None:
            self._tell(waiting, None)
            return False
        await self._rewrite(job, sum(state.point_count for state in states if state.name in job.sources))
        return True

    async def _states(self) -> list[ShardState]:
        parts = await self._ask("parts")
        return [ShardState(name, kind, count, owed) for name, kind, count, _, owed, damaged in parts if not damaged]

    async def _rewrite(self, job: Job, point_count: int) -> None:
        await self._in_thread(lambda: self._check_disk(job))
        self.is_building = True
        try:
            target = await self._ask("begin", job.sources)
            self._leftovers |= {f"{target}.new", target}  # a swap that fails may leave it under either name
            if point_count:
                await self._in_thread(lambda: self._start_builder(target, job.kind))
            await self._carry(target, job)
            built = await self._in_thread(self._finish_builder) if point_count else (0, job.kind)
            self._leftovers |= set(await self._ask("swap", target, built[1], built[0]))
        except LinkDown:
            raise JobFailed("the process that builds ended") from None
        finally:
            self.is_building = False
            if self._builder is not None:
                self._builder.kill()  # the thread may be waiting for it
            await completed(self._in_thread(self._end_builder))  # also one that is being started at this moment
        await self._sweep()

    async def _carry(self, target: str, job: Job) -> None:
        for source in job.sources:
            cursor: str | None = None
            while True:
                page, count, cursor = await self._ask("page", target, source, cursor, PAGE_POINTS)
                if count:
                    await self._in_thread(lambda page=page: self._send(page))  # type: ignore[misc]
                if cursor is None:
                    break

    async def _sweep(self) -> None:
        """Removes folders that nothing refers to; what is open in another process of a crash is removed at opening."""
        if self._leftovers:
            self._leftovers -= {name for name, *_ in await self._ask("parts")}  # what was swapped in is none
        for name in sorted(self._leftovers):
            folder = self._root / name
            if folder.exists():
                await self._in_thread(lambda folder=folder: shutil.rmtree(folder))  # type: ignore[misc]
            self._leftovers.discard(name)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    @staticmethod
    def _tell(waiting: list[asyncio.Future[None]], error: Unready | None) -> None:
        for future in waiting:
            if not future.done():
                if error is None:
                    future.set_result(None)
                else:
                    future.set_exception(error)

    # What follows runs in the thread.

    def _check_disk(self, job: Job) -> None:
        files = (file for name in job.sources for file in (self._root / name).rglob("*") if file.is_file())
        needed = DISK_FACTOR * sum(file.stat().st_blocks * 512 for file in files) + DISK_RESERVE_MIB * 2**20
        free = shutil.disk_usage(self._root).free
        if free < needed:
            raise JobFailed(f"expected {needed // 2**20} MiB of free disk to rewrite a part, got {free // 2**20} MiB")

    def _start_builder(self, target: str, kind: str) -> None:
        self._builder = BuilderProcess(self._root / f"{target}.new", self._dimension, kind)

    def _end_builder(self) -> None:
        builder, self._builder = self._builder, None
        if builder is not None:
            builder.kill()
            builder.release()

    def _send(self, page: bytes) -> None:
        if self._builder is None:  # the sources were empty when the job began, and nothing can have come since
            raise LinkDown
        self._builder.send(page)

    def _finish_builder(self) -> tuple[int, str]:
        if self._builder is None:
            raise LinkDown
        outcome, value = self._builder.finish()
        if outcome != DONE:
            raise JobFailed(str(value))
        count, kind = value
        return count, kind
