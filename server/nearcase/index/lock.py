"""One server per library: an exclusive lock on FOLDER/lock, held from its opening to its closing.

The index process of a library holds one of its own, on FOLDER/lock.engine: it may outlive its server by a moment, and
the server outlives it when it is killed and started again. The lock comes before the engine because the engine's own
refusal of a second open damages the first: every flush of the owner fails afterwards. The kernel releases a lock with
the process, so no stale lock is ever left behind. This module runs in the index process and therefore knows no other
module of nearcase.
"""

from __future__ import annotations

import fcntl
import os
import socket
import time
from pathlib import Path

PATIENCE_S = 5.0
"""How long to wait for the last owner: after `kill -9` of a server its index process lives for some milliseconds."""

SERVER, ENGINE = "lock", "lock.engine"
"""The files that are locked: by who serves the folder, and by the index process of who serves it."""

_PAUSE_S = 0.05


class FolderLock:
    """The lock on one folder; the file names its owner for the people who are refused."""

    def __init__(self, folder: Path, name: str = SERVER) -> None:
        self._path = folder / name
        self._descriptor: int | None = None

    def take(self, owner_pid: int, *, patience_s: float = PATIENCE_S) -> bool:
        """Returns whether the lock is ours now, after waiting for up to `patience_s`.

        Args:
            owner_pid: The process to name to others; the server, not this child of it.
            patience_s: Seconds to keep trying.

        Raises:
            OSError: The file can not be made or locked at all.
        """
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        until = time.monotonic() + patience_s
        while not _try_lock(descriptor):
            if time.monotonic() >= until:
                os.close(descriptor)
                return False
            time.sleep(_PAUSE_S)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{owner_pid} {socket.gethostname()}\n".encode(), 0)
        self._descriptor = descriptor
        return True

    def owner(self) -> str:
        """Returns who holds the lock, in words: "pid 4711", and the host where it is another."""
        try:
            pid, host = self._path.read_text(encoding="utf-8").split()
        except (OSError, ValueError):
            return "pid unknown"  # it took the lock this moment and has not signed yet
        return f"pid {pid}" if host == socket.gethostname() else f"pid {pid} on {host}"

    def refusal(self) -> str:
        """Returns what to tell whoever is refused a library."""
        return (
            f"another nearcase process ({self.owner()}) has this library open; stop it or choose another --data folder"
        )

    def release(self) -> None:
        """Lets others in; the file stays, because removing it would let two processes lock two files."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
