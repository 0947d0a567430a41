"""A little room that is kept, so that a full disk can be told of in the trail itself."""

from __future__ import annotations

import os
from pathlib import Path

NAME = "reserve"
SIZE_BYTES = 256 * 1024
"""Room for a record in a new file, with what the file system needs for it, many times over."""


class Reserve:
    """A file that only takes room."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / NAME

    def make(self) -> None:
        """Takes the room, where it is not taken; OSError where there is none."""
        descriptor = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, SIZE_BYTES)
            os.fsync(descriptor)
        except OSError:
            self._file.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)

    def free(self) -> None:
        """Gives it back."""
        self._file.unlink(missing_ok=True)
