"""A series as one file: an uncompressed zip of its DICOM files, the same bytes for the same files.

Names in the archive are never used as paths, and nothing is written: entries are read into memory one at a time.
"""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections.abc import Sequence
from io import BytesIO

from nearcase.errors import InvalidInput

MAX_FILES = 1 << 14
MAX_FILE_BYTES = 1 << 28
"""Of one entry, inflated; deflate reaches 1 : 1000."""

_ZIP = b"PK\x03\x04"
_LONG_AGO = (1980, 1, 1, 0, 0, 0)  # the first date that a zip can state


def is_archive(data: bytes) -> bool:
    """True for the first bytes of a zip file that is not empty."""
    return data.startswith(_ZIP)


def pack_series(files: Sequence[bytes]) -> bytes:
    """Returns one file for the files of a series; their order, names and dates do not show in it.

    Args:
        files: The DICOM files, whole; copies of one file are packed once.
    """
    by_digest = {hashlib.sha256(data).hexdigest(): data for data in files}
    out = BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for number, digest in enumerate(sorted(by_digest)):
            entry = zipfile.ZipInfo(f"{number:05}", _LONG_AGO)
            entry.create_system = 3  # the same on every platform
            archive.writestr(entry, by_digest[digest])
    return out.getvalue()


class Archive:
    """The files of a packed series; call this in a sandbox.

    Raises:
        InvalidInput: The bytes are no sound zip file, or hold more than MAX_FILES.
    """

    def __init__(self, data: bytes) -> None:
        try:
            self._archive = zipfile.ZipFile(BytesIO(data))
        except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError) as error:
            raise _damaged(error) from None
        self._entries = [entry for entry in self._archive.infolist() if not entry.is_dir()]
        if not 0 < len(self._entries) <= MAX_FILES:
            raise InvalidInput(
                f"expected a zip of 1 to {MAX_FILES} files, got {len(self._entries)}", reason="DAMAGED_ARCHIVE"
            )

    def __len__(self) -> int:
        return len(self._entries)

    def read(self, number: int) -> bytes:
        """Returns one file, counting from 0.

        Raises:
            InvalidInput: It is damaged, encrypted, or inflates beyond MAX_FILE_BYTES.
        """
        try:
            with self._archive.open(self._entries[number]) as stream:
                data = stream.read(MAX_FILE_BYTES + 1)
        except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, OSError) as error:
            raise _damaged(error) from None
        if len(data) > MAX_FILE_BYTES:
            message = f"expected files of at most {MAX_FILE_BYTES} bytes in the zip, got a larger one"
            raise InvalidInput(message, reason="IMAGE_TOO_LARGE")
        return data


def _damaged(error: Exception) -> InvalidInput:
    return InvalidInput(
        f"expected a sound zip file, got a damaged one ({type(error).__name__})", reason="DAMAGED_ARCHIVE"
    )
