"""Sends the trail to a collector, in its order, and never makes anybody wait.

The trail itself is the spool: what could not be sent lies there already, so that a collector that is away for a month
costs no room and loses nothing. A file remembers how far it came. Syslog over TLS has no acknowledgement: after a
connection breaks, what was sent in its last seconds is sent again, so a collector may see a record twice.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import deque
from collections.abc import Callable
from pathlib import Path

from nearcase.audit.dicom_messages import messages_of
from nearcase.audit.line import Kept
from nearcase.audit.place import Place, read_place, write_place
from nearcase.audit.spool import Spool, Step
from nearcase.audit.syslog import Collector, Connection, framed
from nearcase.errors import InvalidInput

AGAIN_S = 30.0
"""After a connection broke, records that were sent so shortly before are sent again."""

LEAST_PAUSE_S, MOST_PAUSE_S = 1.0, 60.0
LOOK_S = 2.0
"""How often a quiet connection is looked at."""

log = logging.getLogger(__name__)


class Forwarder:
    """Sends what is new; where nobody knows what was sent, all there is.

    Args:
        folder: Of the trail.
        collector: Where to.
        last: Tells the last record that is on the disk: what comes after it may still be taken back.
    """

    def __init__(self, folder: Path, collector: Collector, last: Callable[[], int]) -> None:
        self._folder, self._collector, self._last = folder, collector, last
        self._spool, self._place = Spool(folder, last), read_place(folder, last())
        write_place(folder, self._place)
        self._recent: deque[tuple[float, Place]] = deque()
        self._new = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._host = socket.gethostname()
        self.is_connected = False

    @property
    def unsent(self) -> int:
        """Records that the collector does not have."""
        return max(0, self._last() - self._place.seq)

    def start(self) -> None:
        """Begins in the running event loop."""
        self._task = asyncio.get_running_loop().create_task(self._work(), name="audit collector")

    def nudge(self) -> None:
        """There is something new."""
        self._new.set()

    async def close(self, patience_s: float = 2.0) -> None:
        """Ends; what is new is sent first, where the collector takes it at once. The rest is sent after the start."""
        if self._task is None:
            return
        loop = asyncio.get_running_loop()
        until_s = loop.time() + patience_s
        while self.is_connected and self.unsent and loop.time() < until_s:
            self.nudge()
            await asyncio.sleep(0.02)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _work(self) -> None:
        pause_s = LEAST_PAUSE_S
        while True:
            try:
                connection = await Connection.open(self._collector)
            except (OSError, TimeoutError, InvalidInput) as error:
                log.warning("the audit collector can not be reached: %s", type(error).__name__)
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, MOST_PAUSE_S)
                continue
            pause_s, self.is_connected = LEAST_PAUSE_S, True
            try:
                await self._send(connection)
            except (OSError, TimeoutError) as error:
                log.warning("the connection to the audit collector ended: %s", type(error).__name__)
                self._go_back()
            except Exception as error:  # a mistake of ours must not end the sending for good without a word
                log.error("sending to the audit collector failed with %s", type(error).__name__)
            finally:
                self.is_connected = False
                await connection.close()
            await asyncio.sleep(pause_s)

    async def _send(self, connection: Connection) -> None:
        """Goes on until the connection breaks."""
        loop = asyncio.get_running_loop()
        while True:
            self._new.clear()
            step = await asyncio.to_thread(self._following)
            await connection.send([message for kept in step.found for message in self._messages(kept)])
            if step.place != self._place:
                self._recent.append((loop.time(), self._place))
                while self._recent[0][0] < loop.time() - AGAIN_S:
                    self._recent.popleft()
                self._place = step.place
                await asyncio.to_thread(write_place, self._folder, self._place)
                continue
            if step.is_cut:
                continue
            try:
                async with asyncio.timeout(LOOK_S):
                    await self._new.wait()
            except TimeoutError:
                pass

    def _messages(self, kept: Kept) -> list[bytes]:
        try:
            return [framed(xml, kept.event.at_s, self._host) for xml in messages_of(kept, self._host)]
        except (ValueError, OverflowError):  # forged: one that can not be told must not hold up those after it
            log.warning("record %d of the audit trail can not be told, and is not sent to the collector", kept.seq)
            return []

    def _go_back(self) -> None:
        now_s = asyncio.get_running_loop().time()
        while self._recent and self._recent[0][0] < now_s - AGAIN_S:
            self._recent.popleft()
        if self._recent:
            self._place = self._recent[0][1]
            self._recent.clear()

    def _following(self) -> Step:
        """Of a trail that was begun anew, the beginning."""
        step = self._spool.following(self._place if self._place.seq <= self._last() else Place())
        if step.strange:
            log.warning("lines of the audit trail that are no records and are not sent: %d; see verify", step.strange)
        return step
