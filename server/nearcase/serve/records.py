"""The records of decisions on disk: one file for each, named by its own seal, and no decision without one."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from nearcase.decide.record_file import Sealed, blotted
from nearcase.errors import InvalidInput, NotFound, Unready

_RECORD_ID = re.compile(r"[0-9a-f]{64}")
_FOLDER = re.compile(r"[0-9a-f]{2}")
_PARTS = "parts"


class Records:
    """A folder of records, spread over 256 folders by the first two digits of their ids.

    They name cases by id and hold labels, so that only the server's user may read them. One server uses the folder:
    what another left half written there is removed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._erased: list[Callable[[str], bool]] = []
        try:
            for part in (folder / _PARTS).glob("*"):
                part.unlink(missing_ok=True)
        except OSError as error:
            message = f"the folder of records holds what was half written, which can not be removed: {error.strerror}"
            raise Unready(message, reason="RECORD_NOT_KEPT") from error

    def keep(self, records: Iterable[Sealed]) -> None:
        """Returns when the records are on disk.

        Raises:
            Unready: The disk refused; the decisions must not be given.
        """
        for record in records:
            file = self._file(record.record_id)
            try:
                self._write(file, record.data)
            except OSError as error:
                message = f"the record of the decision can not be kept: {error.strerror}"
                raise Unready(message, reason="RECORD_NOT_KEPT") from error
            # A case that was erased after it was found for this decision: blotting did not see the file yet.
            for is_erased in tuple(self._erased):
                self._blot(file, is_erased)

    def read(self, record_id: str) -> bytes:
        """Returns the file of a record.

        Raises:
            InvalidInput: The id is not 64 hexadecimal digits.
            NotFound: There is no such record.
            Unready: The disk refused.
        """
        if not _RECORD_ID.fullmatch(record_id):
            raise InvalidInput("expected a record id of 64 hexadecimal digits, got other text", field="record_id")
        try:
            return self._file(record_id).read_bytes()
        except FileNotFoundError:
            raise NotFound("no record of that id is kept here", reason="RECORD_NOT_FOUND") from None
        except OSError as error:
            raise Unready(f"the record can not be read: {error.strerror}", reason="DISK") from error

    def blot(self, is_erased: Callable[[str], bool]) -> int:
        """Blots erased cases out of all records, removes those of erased images, and returns how many of both.

        All files are read: there is no list of which record names which case, since it would name them too.

        Args:
            is_erased: Of a case id, or of the SHA-256 of an image.

        Raises:
            Unready: The disk refused.
        """
        self._erased = [*self._erased[-(MAX_REMEMBERED - 1) :], is_erased]
        try:
            return sum(self._blot(file, is_erased) for file in self._files())
        except OSError as error:
            message = f"a record of a decision can not be blotted out: {error.strerror}"
            raise Unready(message, reason="RECORD_NOT_KEPT") from error

    def _blot(self, file: Path, is_erased: Callable[[str], bool]) -> bool:
        try:
            left = blotted(file.read_bytes(), is_erased)
        except FileNotFoundError:
            return False
        except InvalidInput:  # about what was erased, edited, or of an older form, which can not lose a part
            file.unlink(missing_ok=True)
            return True
        if left is not None:
            self._write(file, left)
        return left is not None

    def _files(self) -> Iterator[Path]:
        if not self._folder.is_dir():
            return
        for folder in sorted(self._folder.iterdir()):
            if _FOLDER.fullmatch(folder.name):
                yield from sorted(folder.glob("*.json"))

    def _write(self, file: Path, data: bytes) -> None:
        """Replaces the file as a whole; half written ones lie apart, where the next server finds them at once."""
        for folder in (file.parent, self._folder / _PARTS):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, part = tempfile.mkstemp(dir=self._folder / _PARTS)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(part, file)
            for folder in (file.parent, self._folder):  # else the disk may forget the name, or the folder it is in
                _sync(folder)
        except OSError:
            Path(part).unlink(missing_ok=True)
            raise

    def _file(self, record_id: str) -> Path:
        return self._folder / record_id[:2] / f"{record_id}.json"


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


MAX_REMEMBERED = 64
"""Erasures that a record which is kept now is compared with; it takes a moment from a search to its record."""
