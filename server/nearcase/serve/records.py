"""The records of decisions on disk: one file for each, named by its own hash, and no decision without one."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

from nearcase.decide.record import Record, write_record
from nearcase.errors import InvalidInput, NotFound, Unready

_RECORD_ID = re.compile(r"[0-9a-f]{64}")


class Records:
    """A folder of records, spread over 256 folders by the first two digits of their ids.

    They name cases by id and hold labels, so that only the server's user may read them.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, records: Sequence[Record]) -> None:
        """Returns when the records are on disk.

        Raises:
            Unready: The disk refused; the decisions must not be given.
        """
        for record in records:
            self._keep(record)

    def _keep(self, record: Record) -> None:
        file = self._file(record.record_id)
        try:
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor, part = tempfile.mkstemp(prefix=".part-", dir=file.parent)
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(write_record(record))
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(part, file)
        except OSError as error:
            message = f"the record of the decision can not be kept: {error.strerror}"
            raise Unready(message, reason="RECORD_NOT_KEPT") from error

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

    def _file(self, record_id: str) -> Path:
        return self._folder / record_id[:2] / f"{record_id}.json"
