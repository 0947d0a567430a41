"""The head: which record is the last, in a file of its own, sealed, so that a tail that was cut off is missed.

It is written after the records that it counts are on the disk, so it is never ahead of them, and never behind what was
acknowledged. It is one block of the disk, written in place.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from nearcase.audit.event import dumped
from nearcase.audit.key import AuditKey
from nearcase.audit.line import NOTHING

NAME = "head"
_BLOCK = 512


@dataclass(frozen=True, slots=True)
class Head:
    """The last record, and where it lies."""

    seq: int = 0
    sha256: str = NOTHING
    file: int = 0  # number of the file
    start: int = 0  # where its line begins in the file
    end: int = 0  # where the next one will


class HeadFile:
    """The file of the head, which also holds the lock of the folder."""

    def __init__(self, folder: Path, key: AuditKey) -> None:
        self._file, self._key = folder / NAME, key
        self._descriptor = self._open()

    def _open(self) -> int:
        return os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    @property
    def is_in_place(self) -> bool:
        """Whether what is open is what the folder has under its name."""
        return is_at(self._descriptor, self._file)

    def renew(self) -> None:
        """Takes the file that the folder has now, or a new one; OSError where another server has its lock."""
        self.close()
        self._descriptor = self._open()
        if not self.lock():
            self.close()
            raise OSError(errno.EBUSY, "another server writes this audit trail")

    def lock(self) -> bool:
        """Returns whether the folder is ours now; the kernel gives the lock back when the process ends."""
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def read(self) -> Head | None:
        """Returns the head; None where it is missing, or not as it was written."""
        return _opened(os.pread(self._descriptor, _BLOCK, 0), self._key)

    @property
    def is_empty(self) -> bool:
        """Whether nothing was ever written to it, or all of it was taken away."""
        return os.fstat(self._descriptor).st_size == 0

    def write(self, head: Head) -> None:
        """Returns when the head is on the disk."""
        body = dumped(asdict(head))
        block = body + b" " + self._key.seal(body).encode()
        os.pwrite(self._descriptor, block.ljust(_BLOCK - 1) + b"\n", 0)
        os.fdatasync(self._descriptor)

    def close(self) -> None:
        """Lets others in."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1


def read_head(folder: Path, key: AuditKey | None) -> Head | None:
    """Returns the head of a folder that a server may have open; None where it is missing, or was changed.

    Args:
        folder: Of the trail.
        key: Its key; None believes the head without its seal.
    """
    try:
        return _opened((folder / NAME).read_bytes()[:_BLOCK], key)
    except FileNotFoundError:
        return None


def is_at(descriptor: int, path: Path) -> bool:
    """Returns whether an open file is the one of that name: it may have been taken away, and be written to unseen."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False


def _opened(block: bytes, key: AuditKey | None) -> Head | None:
    body, _, seal = block.strip().rpartition(b" ")
    if key is not None and key.seal(body).encode() != seal:
        return None
    try:
        return Head(**json.loads(body))
    except (ValueError, TypeError):
        return None
