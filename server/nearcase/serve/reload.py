"""Findings and their operating points while the server runs: a changed folder is read, checked, and only then used.

A wrong file changes nothing but the log and a metric. A decision in progress ends with what it began with.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from nearcase.decide.findings import read_findings
from nearcase.errors import InvalidInput

if TYPE_CHECKING:
    from nearcase.clock import Clock
    from nearcase.decide.finding import Finding
    from nearcase.decide.fitted import Fitted
    from nearcase.serve.findings import Declared

LOOK_EVERY_S = 2.0
"""A change must be unchanged for as long, so that a folder is not read while it is copied."""

log = logging.getLogger(__name__)


class Declarations(Mapping[str, "tuple[Finding, Fitted | None]"]):
    """The declared findings as they are now; whoever holds it sees the change."""

    def __init__(self, folder: Path | None) -> None:
        """Reads the folder.

        Raises:
            InvalidInput: It is none, or a finding's file is wrong.
        """
        if folder is not None and not folder.is_dir():
            raise InvalidInput(f"setting findings is {str(folder)!r}, expected a folder", field="findings")
        self.folder = folder
        self._now: Declared = read_findings(folder) if folder else {}

    def __getitem__(self, name: str) -> tuple[Finding, Fitted | None]:
        return self._now[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._now)

    def __len__(self) -> int:
        return len(self._now)

    def replace(self, found: Declared) -> None:
        """Takes the place of all of them at once."""
        self._now = found


class Reload:
    """Watches the folder of findings.

    Args:
        declared: What is replaced.
        clock: For the time of the last reading.
    """

    def __init__(self, declared: Declarations, clock: Clock) -> None:
        self._declared, self._clock = declared, clock
        self._task: asyncio.Task[None] | None = None
        self._nudged: asyncio.Task[bool] | None = None  # held, or it could be collected in the middle
        self._one_at_a_time = asyncio.Lock()
        self._read = self._seen = self._look()
        self.is_valid, self.read_at_s = True, clock.now_s()

    @property
    def is_on(self) -> bool:
        """Whether there is a folder."""
        return self._declared.folder is not None

    def start(self) -> None:
        """Begins to watch in the running event loop."""
        if self.is_on:
            self._task = asyncio.get_running_loop().create_task(self._watch(), name="findings")

    async def stop(self) -> None:
        """Ends."""
        tasks = [task for task in (self._task, self._nudged) if task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def nudge(self) -> None:
        """Reads the folder soon, changed or not; for a signal."""
        self._nudged = asyncio.get_running_loop().create_task(self.now(), name="findings")

    async def now(self) -> bool:
        """Reads the folder and returns whether what it holds is used now."""
        folder = self._declared.folder
        if folder is None:
            return False
        async with self._one_at_a_time:
            self._read = await asyncio.to_thread(self._look)
            try:
                found = await asyncio.to_thread(read_findings, folder)
            except InvalidInput as error:
                self.is_valid = False
                log.error("the findings were not reloaded, the old ones stay: %s", error)
                return False
            self._declared.replace(found)
            self.is_valid, self.read_at_s = True, self._clock.now_s()
            log.warning("the findings were reloaded: %d of them", len(found))
            return True

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            found = await asyncio.to_thread(self._look)
            if found == self._seen and found != self._read:
                await self.now()
            self._seen = found

    def _look(self) -> frozenset[tuple[str, int, int]]:
        """What changes when a file does."""
        found = set()
        folder = self._declared.folder
        for path in folder.iterdir() if folder and folder.is_dir() else ():
            if path.suffix in (".toml", ".json"):
                try:
                    state = path.stat()
                except OSError:
                    continue
                found.add((path.name, state.st_mtime_ns, state.st_size))
        return frozenset(found)
