"""Files that come in chunks, kept on disk until they are whole, so that a broken stream can be resumed.

A part file is named by a hash of the request id and the file's hash, never by what a client sent. A de-identified
library keeps parts in memory instead, while their stream is open: on disk they would hold a patient's data as it came,
and outlive a crash.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from contextlib import suppress
from pathlib import Path

from nearcase.errors import InvalidInput, Overloaded, Unready

HOUR_S = 3600.0
_SHA256 = re.compile(r"[0-9a-f]{64}")


class Upload:
    """One file on its way; used by one stream at a time."""

    def __init__(self, path: Path, size_bytes: int, sha256: str, *, in_memory: bool = False) -> None:
        self.path, self.size_bytes, self._sha256 = path, size_bytes, sha256
        self._held = bytearray() if in_memory else None
        self.received_bytes = path.stat().st_size if path.exists() else 0

    @property
    def is_whole(self) -> bool:
        """True when all announced bytes are here."""
        return self.received_bytes == self.size_bytes

    def write(self, offset_bytes: int, data: bytes) -> None:
        """Appends; an offset before the end drops what was after it, as a resuming client expects.

        Raises:
            InvalidInput: The offset leaves a gap, or more came than was announced.
            Unready: The disk refused.
        """
        if not 0 <= offset_bytes <= self.received_bytes:
            message = f"expected the chunk at byte {self.received_bytes}, got one at {offset_bytes}"
            raise InvalidInput(message, field="offset_bytes")
        if offset_bytes + len(data) > self.size_bytes:
            raise InvalidInput(f"more bytes came than the {self.size_bytes} announced", field="size_bytes")
        if self._held is not None:
            self._held[offset_bytes:] = data
        else:
            self._write_part(offset_bytes, data)
        self.received_bytes = offset_bytes + len(data)

    def _write_part(self, offset_bytes: int, data: bytes) -> None:
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)  # it is a patient's, and no one else's
            with os.fdopen(descriptor, "r+b") as file:
                file.truncate(offset_bytes)
                file.seek(offset_bytes)
                file.write(data)
        except OSError as error:
            raise Unready(f"the upload could not be written: {error.strerror}", reason="DISK") from error

    def take(self) -> bytes:
        """Returns the whole file.

        Raises:
            InvalidInput: It is not the file that was announced; what was received is dropped.
        """
        data = self.path.read_bytes() if self._held is None else bytes(self._held)
        if hashlib.sha256(data).hexdigest() != self._sha256:
            self.drop()
            raise InvalidInput(
                "the bytes that came do not have the announced sha256; send the file anew", field="sha256"
            )
        return data

    def drop(self) -> None:
        """Forgets what was received."""
        if self._held is None:
            self.path.unlink(missing_ok=True)
        else:
            self._held, self.received_bytes = bytearray(), 0


class Uploads:
    """The folder of unfinished uploads; parts that nobody went on with for some hours are dropped.

    Args:
        folder: Made if it is absent.
        max_bytes: Of all parts together, as announced by those that are open now and kept by the others.
        keep_hours: How long a part is kept that nobody goes on with.
        in_memory: Nothing is written, nothing can be resumed, and all parts that lie there are dropped at start.
    """

    def __init__(self, folder: Path, *, max_bytes: int, keep_hours: float = 24.0, in_memory: bool = False) -> None:
        self._folder, self._max_bytes, self._in_memory = folder, max_bytes, in_memory
        self._keep_s = keep_hours * HOUR_S
        self._open: dict[Path, int] = {}
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.expire()
        except OSError as error:
            raise Unready(f"the folder for uploads can not be used: {error.strerror}", reason="DISK") from error

    def open(self, request_id: str, sha256: str, size_bytes: int, tenant: str = "") -> Upload:
        """Returns the upload, new or resumed; `close` gives it back. Each tenant has uploads of its own.

        Raises:
            InvalidInput: The hash is no SHA-256, or another stream sends the same upload now.
            Overloaded: Too many bytes are under way.
        """
        self.expire()
        path = self._folder / f"{_name(request_id, sha256, tenant)}-{size_bytes}.part"
        if path in self._open:
            raise InvalidInput("another stream is sending this upload now", reason="UPLOAD_IN_USE", field="request_id")
        if self._held_bytes() + size_bytes > self._max_bytes:
            raise Overloaded("too many bytes of unfinished uploads are here; try again later", reason="UPLOADS_FULL")
        self._open[path] = size_bytes
        return Upload(path, size_bytes, sha256, in_memory=self._in_memory)

    def close(self, upload: Upload) -> None:
        """Lets go of the upload; what was received stays for some hours unless it was dropped, or was in memory."""
        self._open.pop(upload.path, None)
        if self._in_memory:
            upload.drop()

    def find(self, request_id: str, sha256: str, tenant: str = "") -> tuple[int, int]:
        """Returns (received, announced) bytes of an upload; (0, 0) for one that is not known."""
        for path in self._folder.glob(f"{_name(request_id, sha256, tenant)}-*.part"):
            return path.stat().st_size, int(path.stem.rsplit("-", 1)[1])
        return 0, 0

    def expire(self) -> None:
        """Drops what nobody went on with for too long; in memory mode, all that an earlier server left."""
        for path in self._folder.glob("*.part"):
            with suppress(FileNotFoundError):  # it was made whole meanwhile
                is_old = time.time() - path.stat().st_mtime > self._keep_s
                if path not in self._open and (self._in_memory or is_old):
                    path.unlink()

    def _held_bytes(self) -> int:
        kept = sum(path.stat().st_size for path in self._folder.glob("*.part") if path not in self._open)
        return kept + sum(self._open.values())


def _name(request_id: str, sha256: str, tenant: str) -> str:
    if not _SHA256.fullmatch(sha256):
        raise InvalidInput("a file in chunks needs its sha256, 64 hexadecimal digits in lower case", field="sha256")
    return hashlib.sha256(f"{tenant}\n{request_id}\n{sha256}".encode()).hexdigest()[:40]


def folder_size_bytes(folder: Path) -> int:
    """Returns what the files below a folder take, those that vanish meanwhile left out."""
    total = 0
    for base, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.stat(os.path.join(base, name)).st_blocks * 512
            except OSError:
                continue
    return total
