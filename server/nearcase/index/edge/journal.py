"""What was added since the engine last flushed: one file, synced before an addition is acknowledged.

The engine's own flush takes 0.2 s of its process on an ordinary disk, and no search is answered meanwhile. So an
addition is written here first, by another thread, and the engine flushes only now and then; after that the file is
emptied. When a library is opened, what the file holds is added again: adding a point twice is adding it once.

    FOLDER/journal: entries of (size of the body, its CRC-32, body); a body is (size of the JSON, JSON, vectors)

The server's process writes it, the index process reads it at its start; a torn last entry was never acknowledged.
Power loss may leave zeros at the end of a file that was being extended, and those are no entry either.
Deletions are not written here: the engine flushes, and this file is emptied, before any of them.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nearcase.index.edge.roster import sync

if TYPE_CHECKING:
    from nearcase.index.edge.shard import PlainPoint

_NAME = "journal"
_HEAD = struct.Struct("<II")
_SIZE = struct.Struct("<I")

MOST_POINTS = 4000
"""Points after which the engine has to flush: adding them again at an opening takes 1.5 s."""

MOST_BYTES = 64 * 2**20


class Journal:
    """The writing end; used by one thread at a time. Made when the index process has the library open.

    Raises:
        OSError: The disk refuses, in every method.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / _NAME
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._point_count, self._size_bytes = _measured(self._path)
        os.ftruncate(self._descriptor, self._size_bytes)  # a torn last entry
        sync(folder)

    @property
    def is_empty(self) -> bool:
        """Whether the engine's own files hold everything."""
        return self._size_bytes == 0

    @property
    def is_full(self) -> bool:
        """Whether the engine had better flush."""
        return self._point_count >= MOST_POINTS or self._size_bytes >= MOST_BYTES

    def append(self, points: Sequence[PlainPoint]) -> None:
        """Writes the points down; all of them are on the disk when it returns, or none is in the file."""
        entry = _packed(points)
        try:
            done = 0
            while done < len(entry):
                done += os.pwrite(self._descriptor, entry[done:], self._size_bytes + done)
            os.fdatasync(self._descriptor)
        except OSError:
            self._cut(self._size_bytes)
            raise
        self._size_bytes += len(entry)
        self._point_count += len(points)

    def take_back(self, points: Sequence[PlainPoint]) -> None:
        """Undoes the last `append`, of these points, which the engine did not take."""
        kept_bytes = self._size_bytes - len(_packed(points))
        self._cut(kept_bytes)
        self._size_bytes = kept_bytes
        self._point_count -= len(points)

    def clear(self) -> None:
        """Empties the file, after the engine has flushed; on the disk when it returns."""
        self._cut(0)
        self._size_bytes = self._point_count = 0

    def close(self) -> None:
        """Lets go of the file."""
        os.close(self._descriptor)

    def _cut(self, size_bytes: int) -> None:
        os.ftruncate(self._descriptor, size_bytes)
        os.fsync(self._descriptor)


def journalled(folder: Path) -> Iterator[list[PlainPoint]]:
    """Yields what was appended, in order, up to a torn entry; nothing where there is no journal."""
    try:
        data = (folder / _NAME).read_bytes()
    except FileNotFoundError:
        return
    for points, _ in _entries(data):
        yield points


def _measured(path: Path) -> tuple[int, int]:
    """Returns how many points the whole entries hold, and where the last of them ends."""
    point_count = end = 0
    for points, end in _entries(path.read_bytes()):  # noqa: B007  the last end is asked for
        point_count += len(points)
    return point_count, end


def _entries(data: bytes) -> Iterator[tuple[list[PlainPoint], int]]:
    """Yields the points of each whole entry and where it ends."""
    at = 0
    while at + _HEAD.size <= len(data):
        size, checksum = _HEAD.unpack_from(data, at)
        start, at = at + _HEAD.size, at + _HEAD.size + size
        body = memoryview(data)[start:at]
        if at > len(data) or zlib.crc32(body) != checksum:
            return
        try:
            points = _unpacked(body)
        except (struct.error, ValueError, TypeError):  # eight zeros are a size of 0 and the checksum of nothing
            return
        yield points, at


def _packed(points: Sequence[PlainPoint]) -> bytes:
    text = json.dumps([[name, payload] for name, _, payload in points], separators=(",", ":")).encode()
    body = b"".join((_SIZE.pack(len(text)), text, *(vector for _, vector, _ in points)))
    return _HEAD.pack(len(body), zlib.crc32(body)) + body


def _unpacked(body: memoryview) -> list[PlainPoint]:
    (size,) = _SIZE.unpack_from(body)
    named = json.loads(bytes(body[_SIZE.size : _SIZE.size + size]))
    vectors = bytes(body[_SIZE.size + size :])
    each = len(vectors) // max(len(named), 1)
    return [(name, vectors[n * each : (n + 1) * each], payload) for n, (name, payload) in enumerate(named)]
