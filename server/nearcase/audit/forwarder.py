"""Sends the trail to a collector, in its order, and never makes anybody wait.

The trail itself is the spool: what could not be sent lies there already, so that a collector that is away for a month
costs no room and loses nothing. A file remembers how far it came. Syslog over TLS has no acknowledgement: after a
connection breaks, what was sent in its last seconds is sent again, so a collector may see a record twice.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from nearcase.audit.dicom_messages import messages_of
from nearcase.audit.files import MOST_LINE, TrailFile, files_in, lines_in
from nearcase.audit.line import Kept, read
from nearcase.audit.syslog import Collector, Connection, framed
from nearcase.errors import InvalidInput

NAME = "sent"
AT_ONCE = 64
"""Records that are sent before it is noted how far it came."""

AGAIN_S = 30.0
"""After a connection broke, records that were sent so shortly before are sent again."""

LEAST_PAUSE_S, MOST_PAUSE_S = 1.0, 60.0
LOOK_S = 2.0
"""How often a quiet connection is looked at."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Place:
    """How far the collector has the trail."""

    seq: int = 0
    file: int = 0
    offset: int = 0  # where the next record begins


class Forwarder:
    """Sends what is new.

    Args:
        folder: Of the trail.
        collector: Where to.
        last: Tells the last record that is on the disk: what comes after it may still be taken back.
        begin: Where it begins when nothing was ever sent.
    """

    def __init__(self, folder: Path, collector: Collector, last: Callable[[], int], begin: Place) -> None:
        self._folder, self._collector, self._last = folder, collector, last
        place = _read_place(folder)
        self._place = place if place and place.seq <= last() else begin
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
            records, place = await asyncio.to_thread(self._following)
            await connection.send([message for kept in records for message in self._messages(kept)])
            if place != self._place:
                self._recent.append((loop.time(), self._place))
                while self._recent[0][0] < loop.time() - AGAIN_S:
                    self._recent.popleft()
                self._place = place
                await asyncio.to_thread(_write_place, self._folder, place)
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

    def _following(self) -> tuple[list[Kept], Place]:
        """Returns the next records, and the place after them; lines that are no records are passed over.

        A number that no record has yet is waited for, as what is not on the disk may still be taken back; with a true
        record behind it, it is forged.
        """
        found, place, strange = self._read_on()
        if strange:
            log.warning("lines of the audit trail that are no records and are not sent: %d; see verify", strange)
        return found, place

    def _read_on(self) -> tuple[list[Kept], Place, int]:
        last, place = self._last(), self._place
        found, strange, files = list[Kept](), 0, files_in(self._folder)
        for file in files:
            if file.number < place.file:
                continue
            offset = place.offset if file.number == place.file else 0
            for start, line, is_whole in lines_in(file.path, offset):
                is_begun = not is_whole and file is files[-1] and len(line) < MOST_LINE  # the rest of it is to come
                kept = _readable(line) if is_whole else None
                if is_begun or len(found) == AT_ONCE:
                    return found, place, strange
                is_forged = kept is not None and kept.seq > last
                if is_forged and not _has_behind(files, Place(0, file.number, start + len(line)), place.seq, last):
                    return found, place, strange  # not on the disk yet, as far as can be told
                if kept is not None and not is_forged:
                    found.append(kept)
                else:
                    strange += 1
                seq = kept.seq if kept and not is_forged else place.seq
                place = Place(seq, file.number, start + len(line) + is_whole)
        return found, place, strange


def _has_behind(files: list[TrailFile], place: Place, after: int, last: int) -> bool:
    """Returns whether a record behind a place has a number above `after`, up to `last`: they are written in order."""
    for file in files:
        if file.number < place.file:
            continue
        for _, line, is_whole in lines_in(file.path, place.offset if file.number == place.file else 0):
            kept = _readable(line) if is_whole else None
            if kept is not None and after < kept.seq <= last:
                return True
    return False


def _readable(line: bytes) -> Kept | None:
    try:
        return read(line)
    except ValueError:
        return None


def _read_place(folder: Path) -> Place | None:
    try:
        return Place(**json.loads((folder / NAME).read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _write_place(folder: Path, place: Place) -> None:
    """A file that is lost or old costs messages that are sent twice."""
    part = folder / f"{NAME}.part"
    try:
        part.write_text(json.dumps(asdict(place)), encoding="utf-8")
        part.chmod(0o600)
        os.replace(part, folder / NAME)
    except OSError as error:
        log.warning("how far the audit collector came can not be noted: %s", error.strerror)
