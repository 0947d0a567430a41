"""The index process as its one thread sees it: starts it when it is not there, and says in words what went wrong."""

from __future__ import annotations

import logging
import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

from nearcase.errors import InvalidInput, Unready
from nearcase.index.edge import link
from nearcase.index.edge.counts import Counts
from nearcase.index.edge.link import IndexProcess, LinkDown
from nearcase.index.edge.process import CLOSE, DAMAGED, DONE, LOADING, LOST, REFUSED
from nearcase.index.lock import FolderLock

DISK_RESERVE_MIB = 256
"""Free space that a write must leave: the engine writes through mapped files, and a full disk kills it in mid-write."""

LOADING_DEATHS = 2
"""How often the process may die over one shard before it is left out: one death may be somebody's `kill -9`."""

log = logging.getLogger(__name__)

_READS = frozenset({"search", "get", "scroll", "count", "facet", "parts", "page"})


class JobFailed(Exception):
    """A rewriting came to nothing, and why in one line; everything is as it was."""


class Owner:
    """Holds the index process of one library; used by one thread.

    Any other may `kill`, look up what is `known`, or set `is_closed`.
    """

    def __init__(self, folder: Path, dimension: int, exact_candidates: int) -> None:
        self._folder = folder
        self._dimension = dimension
        self._exact_candidates = exact_candidates
        self._lock = FolderLock(folder)
        self._process: IndexProcess | None = None
        self._deaths: Counter[str] = Counter()  # while a shard was being loaded, by its name
        self._point_count = 0
        self._counts = Counts()
        self.is_closed = False
        self.started_count = 0

    @property
    def process_id(self) -> int | None:
        """The process that holds the library; None while none runs."""
        return None if self._process is None else self._process.pid

    def claim(self) -> None:
        """Keeps every other server out until `let_go`, also between two lives of the index process.

        Raises:
            Unready: Another one has the library open, or the disk refuses.
        """
        try:
            is_ours = self._lock.take(os.getpid())
        except OSError as error:
            raise self._unopened(error.strerror or type(error).__name__) from error
        if not is_ours:
            raise self._unopened(self._lock.refusal())

    def let_go(self) -> None:
        """Lets another server in; the last thing that is done to the folder."""
        self._lock.release()

    def check_room(self, size_bytes: int) -> None:
        """Refuses an addition of so many bytes of vectors where the disk may not take it; any thread may ask.

        Raises:
            Unready: The disk is nearly full or read-only.
        """
        self._check_writable()
        free_mib = self._free_mib()
        if free_mib < (least_mib := DISK_RESERVE_MIB + 4 * size_bytes // 2**20):
            raise Unready(f"Expected {least_mib} MiB of free disk to add to, got {free_mib} MiB.", reason="DISK_FULL")

    def write(self, operation: str, *arguments: object) -> Any:
        """Asks for a change, unless the disk takes none: the engine would fail in the middle of it.

        Raises:
            Unready: The disk is read-only, or as `ask`.
        """
        self._check_writable()
        return self.ask(operation, *arguments)

    def ask(self, operation: str, *arguments: object) -> Any:
        """Returns the answer of the process, which is started when it does not run.

        Raises:
            InvalidInput: The engine can not read it.
            Unready: The process ended, failed, can not be started, or holds a damaged part that stands in the way.
            JobFailed: A rewriting can not go on.
        """
        if (known := self.known(operation, *arguments)) is not None:
            return known
        process = self.running()
        if operation not in _READS:
            self._counts.forget()
        try:
            outcome, value = process.ask(operation, arguments, self._limit_s(operation))
        except LinkDown:
            self._discard(process)
            raise Unready(
                f"The index process ended before it answered {operation}; repeat the call, which starts it again.",
                reason="INDEX_PROCESS_ENDED",
            ) from None
        if outcome == DONE:
            self._counts.keep(operation, arguments, value)
            return value
        if outcome == LOST:
            raise JobFailed(value)
        if outcome == DAMAGED:
            raise Unready(
                f"Expected a whole library to {operation} from, got damaged parts: {value}. Restore a backup.",
                reason="LIBRARY_DAMAGED",
            )
        if outcome == REFUSED:
            raise InvalidInput(f"The index engine can not read this {operation}: {value}.")
        self._discard(process)  # what it holds in memory after a failure is not to be trusted; the disk is
        log.error("the index engine failed in %s: %s", operation, value)  # its words name places on this machine
        raise Unready(f"The index engine failed in {operation}; the log of the server says how.")

    def known(self, operation: str, *arguments: object) -> Any:
        """Returns an answer that is kept, or None; any thread may look, and none while it has a write under way."""
        return None if self.is_closed or self._process is None else self._counts.known(operation, arguments)

    def running(self) -> IndexProcess:
        """Returns the process, started if need be.

        Raises:
            Unready: It can not open the library, or the index is closed.
        """
        while self._process is None:
            if self.is_closed:
                raise Unready("The index is closed.")
            self._start()
        return self._process

    def end(self) -> bool:
        """Lets the process close its files, waits for it to be gone, and returns whether it said that it flushed."""
        process = self._process
        if process is None:
            return False
        outcome = ""
        try:
            outcome, _ = process.ask(CLOSE, (), link.ANSWER_LIMIT_S)
        except LinkDown:
            process.kill()
        process.release()
        self._process = None
        return outcome == DONE

    def kill(self) -> None:
        """Ends the process at once, which loses nothing that it acknowledged."""
        if self._process is not None:
            self._process.kill()

    def _start(self) -> None:
        """Leaves the process running; or not, after it died over a shard, and another start may help."""
        hopeless = [name for name, deaths in self._deaths.items() if deaths >= LOADING_DEATHS]
        try:
            self._process = process = IndexProcess(self._folder, self._dimension, self._exact_candidates, hopeless)
        except OSError as error:
            raise Unready(f"The index process can not be started: {error.strerror}.") from error
        self.started_count += 1
        value: Any
        loading, outcome, value = "", LOADING, ""
        try:
            while outcome == LOADING:
                loading = value
                outcome, value = process.answer(link.ANSWER_LIMIT_S)
        except LinkDown:
            outcome, value = "", f"the index process ended over it, with {self._free_mib()} MiB of disk free"
        if outcome == DONE:
            self._point_count = value
            return
        self._discard(process)
        if outcome or not loading:
            raise self._unopened(value, reason="LIBRARY_DAMAGED" if outcome == DAMAGED else None)
        self._deaths[loading] += 1

    def _unopened(self, why: str, *, reason: str | None = None) -> Unready:
        return Unready(f"The library in {self._folder} can not be opened: {why}.", reason=reason)

    def _limit_s(self, operation: str) -> float:
        if operation not in _READS:
            return link.ANSWER_LIMIT_S
        return link.READ_LIMIT_S + self._point_count / link.POINTS_READ_PER_S

    def _discard(self, process: IndexProcess) -> None:
        process.kill()
        process.release()
        self._process = None
        self._counts.forget()

    def _check_writable(self) -> None:
        if is_read_only(self._folder):
            raise Unready("Expected a disk that can be written to, got one that is read-only.", reason="READ_ONLY")

    def _free_mib(self) -> int:
        try:
            return shutil.disk_usage(self._folder).free // 2**20
        except OSError:
            return 0  # the folder is gone


def is_read_only(folder: Path) -> bool:
    """Returns whether the disk under the folder takes no changes now."""
    try:
        return bool(os.statvfs(folder).f_flag & os.ST_RDONLY)
    except OSError:
        return False  # the folder is gone, which the engine tells better
