"""Whether a trail is as it was written: every record sealed and bound to the one before, none missing, up to the head.

A server may be writing meanwhile: the head is read first, and what comes after it is only held to be whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from nearcase.audit.event import DAMAGED, FILE, AuditEvent
from nearcase.audit.files import TrailFile, files_in, lines_in
from nearcase.audit.head import Head, read_head
from nearcase.audit.key import AuditKey
from nearcase.audit.line import NOTHING, Kept, is_sealed, read
from nearcase.errors import Unready

MOST_FAULTS = 1000
"""What is told of a trail that is wrong all over."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is not as it was written."""

    what: str
    file: str = ""
    line: int = 0  # from 1; 0 where no line is meant
    seq: int = 0  # number of the record; 0 where it is not known


@dataclass(slots=True)
class Verified:
    """What was found."""

    files: int = 0
    records: int = 0
    first_at_s: float | None = None
    last_at_s: float | None = None
    trail_id: str = ""  # SHA-256 of the first record
    last_seq: int = 0
    last_sha256: str = ""  # of the last record: keep it elsewhere, and ask with it later
    are_seals_checked: bool = True
    faults: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def is_sound(self) -> bool:
        """Whether nothing is wrong."""
        return not self.faults


def verify(folder: Path, key: AuditKey | None, expected: tuple[int, str] | None = None) -> Verified:
    """Returns what is wrong with a trail, and where.

    Args:
        folder: Of the trail.
        key: Its key; without it seals are not checked, and who rewrote the whole chain is not found.
        expected: Number and SHA-256 of a record that was the last once, from a witness outside the folder.

    Raises:
        Unready: The folder can not be read.
    """
    try:
        head = read_head(folder, key)
        walk = _Walk(key, head, expected)
        for file in walk.in_order(files_in(folder)):
            walk.take(file)
        return walk.end()
    except OSError as error:
        raise Unready(f"the audit trail can not be read: {error.strerror}", reason="DISK") from error


class _Walk:
    """Goes through all records once."""

    def __init__(self, key: AuditKey | None, head: Head | None, expected: tuple[int, str] | None) -> None:
        self._key, self._head, self._expected = key, head, expected
        self._out = Verified(are_seals_checked=key is not None)
        self._last = Kept(0, "", AuditEvent(FILE, 0.0), NOTHING)  # that of the largest number so far
        self._is_doubtful = False  # the line before was wrong, so what binds the next to it is too
        self._missing: list[range] = []
        self._hashes: dict[int, str] = {}  # of those records that somebody asks for

    def in_order(self, files: list[TrailFile]) -> Iterator[TrailFile]:
        """Yields the files, and tells of those that are missing."""
        expected = 1
        for file in files:
            self._tell_missing(range(expected, file.number))
            expected = file.number + 1
            self._out.files += 1
            yield file
        if self._head:
            self._tell_missing(range(expected, self._head.file + 1), "; the head is in the last")

    def _tell_missing(self, gap: range, more: str = "") -> None:
        if gap:
            which = f"file {gap.start} is" if len(gap) == 1 else f"files {gap.start} to {gap.stop - 1} are"
            self._tell(f"{which} missing{more}")

    def take(self, file: TrailFile) -> None:
        """Takes one file in."""
        for number, (start, line, is_whole) in enumerate(lines_in(file.path), 1):
            place = (file.path.name, number)
            if not is_whole and self._is_after_head(file, start):
                self._out.notes.append(f"{file.path.name} ends in a line that is being written, or was cut short")
                continue
            try:
                kept = read(line)
            except ValueError:
                self._tell("no record", *place)
                self._is_doubtful = True
                continue
            self._take_record(kept, is_whole and (self._key is None or is_sealed(line, self._key)), place)

    def end(self) -> Verified:
        """Returns all of it, after what can be known at the end only."""
        for gap in self._missing:
            which = f"record {gap.start} is" if len(gap) == 1 else f"records {gap.start} to {gap.stop - 1} are"
            self._tell(f"{which} missing", seq=gap.start)
        self._check_head()
        if self._expected:
            seq, sha256 = self._expected
            if self._hashes.get(seq) != sha256:
                self._tell("this record is not the one that was given: the trail was rewritten or rolled back", seq=seq)
        self._out.last_seq, self._out.last_sha256 = self._last.seq, self._last.sha256
        return self._out

    def _take_record(self, kept: Kept, is_sealed_well: bool, place: tuple[str, int]) -> None:
        self._count(kept)
        if not is_sealed_well:
            self._tell("the record was changed", *place, kept.seq)
        if kept.event.kind == DAMAGED:
            when = datetime.fromtimestamp(kept.event.at_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
            why = "".join(letter if letter.isprintable() else "?" for letter in kept.event.detail)
            self._tell(f"the server found the trail damaged at {when}: {why}", *place, kept.seq)
        expected = self._last.seq + 1
        if kept.seq < expected:
            self._tell(f"record {kept.seq} comes after record {self._last.seq}", *place, kept.seq)
            self._missing = [part for gap in self._missing for part in _without(gap, kept.seq)]
            self._is_doubtful = True
            return
        if kept.seq > expected:
            self._missing.append(range(expected, kept.seq))
        elif kept.prev != self._last.sha256 and not self._is_doubtful:
            self._tell("it is not bound to the record before it: one of the two was changed", *place, kept.seq)
        self._last, self._is_doubtful = kept, not is_sealed_well
        for asked in (self._head.seq if self._head else 0, self._expected[0] if self._expected else 0):
            if kept.seq == asked:
                self._hashes[asked] = kept.sha256

    def _count(self, kept: Kept) -> None:
        self._out.records += 1
        self._out.last_at_s = kept.event.at_s
        if self._out.first_at_s is None:
            self._out.first_at_s, self._out.trail_id = kept.event.at_s, kept.sha256

    def _check_head(self) -> None:
        head, last = self._head, self._last.seq
        if head is None:
            self._tell("the head is missing or was changed, so that nobody knows how many records there were")
        elif head.seq > last:
            which = f"records {last + 1} to {head.seq} are" if head.seq > last + 1 else f"record {head.seq} is"
            self._tell(f"{which} missing at the end", seq=last + 1)
        elif head.seq and self._hashes.get(head.seq, head.sha256) != head.sha256:
            self._tell("the record is not the one that the head names", seq=head.seq)
        elif last > head.seq:
            self._out.notes.append(f"{last - head.seq} records after the head, which a server was or is writing")

    def _is_after_head(self, file: TrailFile, start: int) -> bool:
        head = self._head
        return head is not None and (file.number, start) >= (head.file, head.end)

    def _tell(self, what: str, file: str = "", line: int = 0, seq: int = 0) -> None:
        if len(self._out.faults) < MOST_FAULTS:
            self._out.faults.append(Fault(what, file, line, seq))


def _without(gap: range, seq: int) -> list[range]:
    if seq not in gap:
        return [gap]
    return [part for part in (range(gap.start, seq), range(seq + 1, gap.stop)) if part]
