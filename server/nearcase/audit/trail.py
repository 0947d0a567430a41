"""The trail as a running server uses it: whoever asks waits until the record is on the disk, all who wait together.

What waits is written in one go by a thread of its own, so that ten requests cost as many writes as one. (The stages of
one request, for tracing, are `serve/trail.py`.)
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nearcase.audit.chain import AuditChain
from nearcase.audit.key import AuditKey, default_key_file, make_key, read_key, sync_folder
from nearcase.errors import InvalidInput, Unready

if TYPE_CHECKING:
    from nearcase.audit.event import AuditEvent
    from nearcase.clock import Clock

MAX_WAITING = 10_000
"""Records that may wait for a disk that does not answer; requests in progress are far fewer."""

RETRY_S = 1.0
"""How often a trail that could not be written is tried again, whether or not somebody asks."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Waiting:
    event: AuditEvent
    done: asyncio.Future[None] | None  # None where nobody waits


class AuditTrail:
    """The audit trail of one server.

    Args:
        chain: The open files.
        key: What names are made with.
    """

    def __init__(self, chain: AuditChain, key: AuditKey) -> None:
        self.chain, self.key = chain, key
        self.problem = ""
        """Why nothing can be written now; empty while it can."""
        self.failures = 0
        """Events that could not be written since the start."""
        self.on_written: Callable[[], None] = lambda: None
        """Called after records were written: there is something to send."""
        self._waiting: list[_Waiting] = []
        self._wake = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "audit")
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins in the running event loop."""
        self._task = asyncio.get_running_loop().create_task(self._work(), name="audit")

    async def close(self) -> None:
        """Writes what waits, and closes the files."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            if self._waiting:
                await self._commit()
        await asyncio.get_running_loop().run_in_executor(self._thread, self.chain.close)
        self._thread.shutdown()

    def check(self) -> None:
        """Raises Unready where nothing can be written, so that nothing is begun that could not be told of."""
        if self.problem:
            raise not_kept(self.problem)

    async def keep(self, event: AuditEvent) -> None:
        """Returns when the event is on the disk; it is written also where the caller goes away meanwhile.

        Raises:
            Unready: It can not be written; what it tells of must not be shown.
        """
        self.check()
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.add_done_callback(_looked_at)
        self._put(_Waiting(event, done))
        await asyncio.shield(done)

    def put(self, event: AuditEvent) -> None:
        """Has the event written soon; for what shows nothing to anybody."""
        if self.problem:
            self.failures += 1
            self.chain.lost += 1
        else:
            self._put(_Waiting(event, None))

    def _put(self, waiting: _Waiting) -> None:
        if len(self._waiting) >= MAX_WAITING:
            self.failures += 1
            raise not_kept("the disk does not answer")
        self._waiting.append(waiting)
        self._wake.set()

    async def _work(self) -> None:
        while True:
            try:
                async with asyncio.timeout(RETRY_S if self.problem else None):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            await self._commit()

    async def _commit(self) -> None:
        waiting, self._waiting = self._waiting, []
        events = [each.event for each in waiting]
        write = asyncio.get_running_loop().run_in_executor(self._thread, self.chain.append, events)
        try:
            await asyncio.shield(write)
        except asyncio.CancelledError:  # the server stops; what was begun ends
            await asyncio.gather(write, return_exceptions=True)
            self._settle(waiting, write.exception())
            raise
        except Exception as error:
            self._settle(waiting, error)
        else:
            self._settle(waiting, None)

    def _settle(self, waiting: list[_Waiting], error: BaseException | None) -> None:
        problem = _in_words(error) if error else ""
        if problem and not self.problem:
            log.error("the audit trail can not be written, so nothing is answered: %s", problem)
        if self.problem and not problem:
            log.warning("the audit trail can be written again")
        self.problem = problem
        self.failures += len(waiting) if error else 0
        for each in waiting:
            if each.done is None or each.done.done():
                continue
            if error:
                each.done.set_exception(not_kept(problem))
            else:
                each.done.set_result(None)
        if not error and waiting:
            self.on_written()


def open_trail(folder: Path, key_file: Path | None, clock: Clock) -> AuditTrail:
    """Returns the trail in a folder; without a key file one is made beside the folder.

    A key that a server made is there only where a trail was; one that was given may be older than its trail.

    Raises:
        InvalidInput: The key is unfit, or another than the trail was begun with.
        Unready: The disk refuses, or another server writes this trail.
    """
    file = key_file or default_key_file(folder)
    was_begun = key_file is None and file.exists()
    if key_file is None and not was_begun:
        if folder.is_dir() and any(folder.glob("*.jsonl")):
            message = f"expected the key of the audit trail at {file.name}, beside its folder; restore it"
            raise InvalidInput(message, reason="AUDIT_KEY", field="audit_key")
        return _open_new(folder, file, clock)
    key = read_key(file)
    return AuditTrail(AuditChain.open(folder, key, clock, was_begun=was_begun), key)


def _open_new(folder: Path, file: Path, clock: Clock) -> AuditTrail:
    """The key has its name only when there is a head: who dies in between begins anew, and no trail seems missing."""
    fresh = file.with_name(f"{file.name}.new")
    try:
        if not fresh.exists():
            make_key(fresh)
        key = read_key(fresh)
        chain = AuditChain.open(folder, key, clock)
        try:
            fresh.replace(file)
            sync_folder(file.parent)
        except OSError:
            chain.close()
            raise
    except OSError as error:
        raise Unready(f"the key of the audit trail can not be made: {error.strerror}", reason="DISK") from error
    return AuditTrail(chain, key)


def not_kept(why: str) -> Unready:
    """Returns the refusal of an answer whose record could not be kept."""
    return Unready(f"the audit record can not be kept: {why}", reason="AUDIT_NOT_KEPT")


def _looked_at(done: asyncio.Future[None]) -> None:
    """Where the caller has gone, nobody else asks for the exception, and asyncio would complain."""
    if not done.cancelled():
        done.exception()


def _in_words(error: BaseException) -> str:
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    return type(error).__name__
