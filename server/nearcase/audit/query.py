"""Reading a trail: all records, or those that are looked for, in the order of their numbers."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nearcase.audit.files import TrailFile, files_in, lines_in
from nearcase.audit.line import Kept, read
from nearcase.errors import Unready

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is looked for; what is empty is not asked for."""

    since_s: float | None = None
    until_s: float | None = None
    caller: str = ""
    tenant: str = ""
    rpc: str = ""  # SearchService/Search, or a part of that
    code: str = ""
    kind: str = ""
    request_id: str = ""
    names: tuple[str, ...] = ()  # keyed names, of which one must be among those of the record

    def takes(self, kept: Kept) -> bool:
        """Returns whether this is looked for."""
        event = kept.event
        exact = ("caller", "tenant", "code", "kind", "request_id")
        if any(getattr(self, name) and getattr(self, name) != getattr(event, name) for name in exact):
            return False
        if self.since_s is not None and event.at_s < self.since_s:
            return False
        if self.until_s is not None and event.at_s >= self.until_s:
            return False
        if self.rpc.lower() not in event.rpc.lower():
            return False
        return not self.names or not {*event.about, *event.cases, *event.patients}.isdisjoint(self.names)


def records_in(folder: Path, after_seq: int = 0) -> Iterator[Kept]:
    """Yields the records after a number; lines that can not be read are left out: `verify` tells of them.

    Raises:
        Unready: The folder can not be read.
    """
    try:
        for file in _since(files_in(folder), after_seq):
            for kept in records_of(file):
                if kept.seq > after_seq:
                    yield kept
    except OSError as error:
        raise Unready(f"the audit trail can not be read: {error.strerror}", reason="DISK") from error


def records_of(file: TrailFile) -> Iterator[Kept]:
    """Yields the records of one file, with their places; warns of lines that are none, at its end."""
    strange = 0
    for number, (_, line, is_whole) in enumerate(lines_in(file.path), 1):
        try:
            kept = read(line) if is_whole else None
        except ValueError:
            strange += 1
            continue
        if kept:
            yield dataclasses.replace(kept, file=file.path.name, line=number)
    if strange:
        log.warning("lines of %s that are no records and were left out: %d; see verify", file.path.name, strange)


def _since(files: list[TrailFile], after_seq: int) -> list[TrailFile]:
    """Leaves out the files whose successor begins at or before that number."""
    if not after_seq:
        return files
    first = 0
    for place, file in enumerate(files):
        begin = next(records_of(file), None)
        if begin is not None and begin.seq <= after_seq:
            first = place
    return files[first:]
