"""How a point is added: into the journal first, then into the engine, which flushes only now and then."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from nearcase.errors import NearcaseError, Unready
from nearcase.index.edge.journal import Journal

if TYPE_CHECKING:
    from nearcase.index.edge.owner import Owner
    from nearcase.index.edge.shard import PlainPoint

T = TypeVar("T")


class Additions:
    """The journal of one open library; its callers take turns, deletions among them.

    Args:
        folder: The library.
        owner: The index process, which other threads may ask about the disk only.
        run: Runs something in the thread that talks to the index process.
    """

    def __init__(self, folder: Path, owner: Owner, run: Callable[[Callable[[], Any]], Awaitable[Any]]) -> None:
        self._folder, self._owner, self._run = folder, owner, run
        self._journal: Journal | None = None

    async def open(self) -> None:
        """Opens the journal, which the index process has read by now.

        Raises:
            Unready: The disk refuses.
        """
        self._journal = await self._written(lambda: Journal(self._folder))

    async def store(self, points: Sequence[PlainPoint]) -> None:
        """Adds the points, which are on the disk when it returns.

        Raises:
            InvalidInput, Unready: Nothing is stored; or the index process died in this call, and all is or nothing.
        """
        journal, size_bytes = self._opened(), sum(len(vector) for _, vector, _ in points)
        await asyncio.to_thread(self._owner.check_room, size_bytes)
        await self._written(lambda: journal.append(points))
        try:
            await self._run(lambda: self._owner.write("upsert", points))
        except NearcaseError as error:
            if error.reason != "INDEX_PROCESS_ENDED":
                await self._written(lambda: journal.take_back(points))
            raise
        if journal.is_full:
            await self.settle()

    async def settle(self) -> None:
        """Lets the engine flush, and empties the journal: from then on a deletion is one."""
        journal = self._opened()
        if not journal.is_empty:
            await self._run(lambda: self._owner.write("flush"))
            await self._written(journal.clear)

    async def close(self, *, is_clean: bool) -> None:
        """Lets go of the journal, and empties it where the engine has flushed at its end."""
        journal, self._journal = self._journal, None
        if journal is None:
            return
        if is_clean:
            with suppress(OSError):  # what it holds is added again at the next opening, which changes nothing
                await asyncio.to_thread(journal.clear)
        journal.close()

    def _opened(self) -> Journal:
        if self._journal is None:
            raise Unready("The index is closed.")
        return self._journal

    @staticmethod
    async def _written(work: Callable[[], T]) -> T:
        try:
            return await asyncio.to_thread(work)
        except OSError as error:
            raise Unready(f"The disk refused the journal: {error.strerror}.", reason="DISK") from error


async def completed(work: Coroutine[Any, Any, None]) -> None:
    """Awaits work that may not be cut in the middle: a caller who is cancelled waits for its end first."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        if not task.cancelled():
            task.exception()  # seen; the caller is told of the cancelling
        raise
