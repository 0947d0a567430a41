"""The chain: records that are only ever added, each bound to the one before, on the disk before anything goes on.

A file ends when it is large or its day is over; the next begins with a record that goes on with the chain. When the
disk is full a reserve is freed, so that this is the last thing that the trail says before it stops; it goes on, and
says so, when there is room again. All of it blocks, and is for one thread at a time.
"""

from __future__ import annotations

import errno
import logging
import os
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nearcase.audit.event import DAMAGED, FILE, FULL, RESUMED, AuditEvent
from nearcase.audit.files import day_of, file_of, files_in, lines_in
from nearcase.audit.head import Head, HeadFile, is_at
from nearcase.audit.key import AuditKey, sync_folder
from nearcase.audit.line import hash_of, read, written
from nearcase.audit.recovery import recover
from nearcase.audit.reserve import Reserve
from nearcase.errors import InvalidInput, Unready

if TYPE_CHECKING:
    from nearcase.clock import Clock

FILE_BYTES = 64 * 2**20
"""A file of the trail ends after so many: about 100,000 searches."""

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_KEY = "key "

log = logging.getLogger(__name__)


class AuditChain:
    """The open trail of one server.

    Args:
        folder: Of the trail; it is there, and its lock is ours.
        key: Seals the records.
        head: The file of the head.
        clock: Tells when; never what comes first.
        file_bytes: Size after which a file ends.
        was_begun: There was a trail in the folder once, whatever is there now.
    """

    def __init__(
        self,
        folder: Path,
        key: AuditKey,
        head: HeadFile,
        clock: Clock,
        file_bytes: int = FILE_BYTES,
        *,
        was_begun: bool = False,
    ) -> None:
        self._was_begun = was_begun
        self._folder, self._key, self._clock, self._file_bytes = folder, key, clock, file_bytes
        self._head_file, self._head = head, Head()
        self._last_file, self._day = 0, ""
        self._descriptor: int | None = None
        self._reserve = Reserve(folder)
        self._is_full, self._is_doubtful = False, True
        self.records = 0
        """Written since it was opened."""
        self.lost = 0
        """Events that could not be written, to be told when there is room again."""
        self.damages = 0
        """Times since it was opened that it was found damaged."""

    @classmethod
    def open(
        cls, folder: Path, key: AuditKey, clock: Clock, *, file_bytes: int = FILE_BYTES, was_begun: bool = False
    ) -> AuditChain:
        """Returns the trail in a folder, which is made where there is none; what a crash left is made good.

        A trail that was begun (its key is there) and of which nothing is left is a damaged one, not a new one.

        Raises:
            Unready: With reason AUDIT_IN_USE: another server writes this trail. With reason DISK: the disk refuses.
            InvalidInput: With reason AUDIT_KEY: the trail was begun with another key.
        """
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            sync_folder(folder.parent)
            head = HeadFile(folder, key)
            try:
                return cls._opened(cls(folder, key, head, clock, file_bytes, was_begun=was_begun))
            except BaseException:
                head.close()
                raise
        except OSError as error:
            raise Unready(f"the audit trail can not be used: {error.strerror}", reason="DISK") from error

    @classmethod
    def _opened(cls, chain: AuditChain) -> AuditChain:
        if not chain._head_file.lock():
            raise Unready("another server writes this audit trail", reason="AUDIT_IN_USE")
        check_key(chain._folder, chain._key)
        chain._make_reserve()
        chain._reopen()
        return chain

    @property
    def head(self) -> Head:
        """The last record that is on the disk."""
        return self._head

    @property
    def folder(self) -> Path:
        """Where the files are."""
        return self._folder

    def append(self, events: Sequence[AuditEvent]) -> None:
        """Returns when the events are on the disk, in this order.

        Raises:
            OSError: They are not, and must be taken as lost; what they tell of must not be shown.
        """
        try:
            if self._is_full:
                self._resume()
            if self._is_doubtful:
                self._reopen()
            self._check_place()
            self._write(events)
        except OSError as error:
            self._is_doubtful = True
            self.lost += len(events)
            if error.errno in _NO_ROOM and not self._is_full:
                self._tell_full()
            raise

    def close(self) -> None:
        """Lets others open it."""
        self._close_file()
        self._head_file.close()

    def _check_place(self) -> None:
        """Raises OSError where somebody took the files away while they were open: what is written would be gone."""
        path = file_of(self._folder, self._last_file, self._day).path
        if not self._head_file.is_in_place or (self._descriptor is not None and not is_at(self._descriptor, path)):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))

    def _write(self, events: Sequence[AuditEvent]) -> None:
        now_s = self._clock.now_s()
        if self._descriptor is None or self._head.end >= self._file_bytes or day_of(now_s) > self._day:
            self._begin_file(now_s)
        self._put(events)

    def _put(self, events: Sequence[AuditEvent]) -> None:
        """Lines first, then the head: the head is never ahead of what it counts."""
        if self._descriptor is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        head, lines = self._head, list[bytes]()
        for event in events:
            line = written(head.seq + 1, head.sha256, event, self._key)
            start = head.end
            head = Head(head.seq + 1, hash_of(line), self._last_file, start, start + len(line) + 1)
            lines.append(line + b"\n")
        try:
            _write_all(self._descriptor, b"".join(lines))
            os.fdatasync(self._descriptor)
        except OSError:
            os.ftruncate(self._descriptor, self._head.end)
            raise
        self._head = head
        self.records += len(lines)
        self._head_file.write(head)

    def _begin_file(self, now_s: float) -> None:
        """The day in a name never goes back, so that a clock that jumps to and fro makes one file and not many."""
        self._close_file()
        day = max(day_of(now_s), self._day)
        file = file_of(self._folder, self._last_file + 1, day)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        descriptor = os.open(file.path, flags, 0o600)
        sync_folder(self._folder)
        self._descriptor, self._last_file, self._day = descriptor, file.number, day
        self._head = Head(self._head.seq, self._head.sha256, file.number, 0, 0)
        detail = f"{_KEY}{self._key.check_value} salt {secrets.token_hex(8)}"
        self._put([AuditEvent(FILE, now_s, count=file.number, detail=detail)])

    def _reopen(self) -> None:
        """Begins where the disk says that the trail ends."""
        self._close_file()
        self._renew_head()
        was_begun = self._was_begun or not self._head_file.is_empty
        found = recover(self._folder, self._key, self._head_file.read(), was_begun=was_begun)
        self._head, self._last_file, self._day = found.head, found.last_file, found.day
        if found.can_append:
            path = next(file.path for file in files_in(self._folder) if file.number == found.head.file)
            self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        damages = [words for kind, _, words in found.found if kind == DAMAGED]
        for words in damages:
            log.warning("the audit trail is damaged, and a record will say so for good: %s", words)
        if found.is_new or (
            found.can_append and not damages
        ):  # a new head would hide that one is missing, till it is told
            self._head_file.write(found.head)
        self._is_doubtful = False
        now_s = self._clock.now_s()
        told = [AuditEvent(kind, now_s, count=count, detail=words) for kind, count, words in found.found]
        if told:
            self._write(told)
            self.damages += len(damages)

    def _renew_head(self) -> None:
        """Where the file was taken away while it was open, what it held is known here."""
        if self._head_file.is_in_place:
            return
        self._head_file.renew()
        self._make_reserve()
        if self._head.seq:
            self._head_file.write(self._head)
        log.warning("the head of the audit trail was taken away, and is written anew")

    def _tell_full(self) -> None:
        self._is_full = True
        try:
            self._reserve.free()
            self._reopen()
            self._write([AuditEvent(FULL, self._clock.now_s(), detail="no room for records: answers are held back")])
        except OSError:  # others took what was freed; the log and health say it
            self._is_doubtful = True

    def _resume(self) -> None:
        """Raises OSError while there is no room for a reserve."""
        self._reserve.make()
        if self._is_doubtful:
            self._reopen()
        self._write([AuditEvent(RESUMED, self._clock.now_s(), count=self.lost, detail="events were not recorded")])
        self._is_full, self.lost = False, 0

    def _make_reserve(self) -> None:
        try:
            self._reserve.make()
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            self._is_full = True

    def _close_file(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def check_key(folder: Path, key: AuditKey) -> None:
    """Returns where a trail was begun with this key, or there is none yet.

    Raises:
        InvalidInput: With reason AUDIT_KEY: it was begun with another.
        Unready: With reason DISK: the disk refuses.
    """
    try:
        named = next(_keys_named(folder), key.check_value)
    except OSError as error:
        raise Unready(f"the audit trail can not be read: {error.strerror}", reason="DISK") from error
    if named != key.check_value:
        message = "the audit trail was begun with another key; give that one, or a new folder"
        raise InvalidInput(message, reason="AUDIT_KEY", field="audit_key")


def _keys_named(folder: Path) -> Iterator[str]:
    """Yields what the files say of their key, newest first."""
    for file in reversed(files_in(folder)):
        for _, line, _ in lines_in(file.path):
            try:
                kept = read(line)
            except ValueError:
                break
            if kept.event.kind == FILE and kept.event.detail.startswith(_KEY):
                yield kept.event.detail.removeprefix(_KEY).partition(" ")[0]
            break
