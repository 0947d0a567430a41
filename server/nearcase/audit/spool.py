"""The trail as what is still to be sent: read on step by step, each of them short however much was forged."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from nearcase.audit.files import MOST_LINE, files_in, lines_in
from nearcase.audit.line import Kept, read
from nearcase.audit.place import Place

AT_ONCE = 64
"""Records of one step."""

STEP_BYTES = 2**18
"""A step ends after so many, so that lines that are no records hold nobody up."""


@dataclass(slots=True)
class Step:
    """What was read on."""

    place: Place  # after what is told
    found: list[Kept] = field(default_factory=list)
    strange: int = 0  # lines that are no records
    is_cut: bool = False  # there is more to look at, at once


@dataclass(frozen=True, slots=True)
class _Ahead:
    """Lines that begin with a number that no record has yet: of them nothing is known till a record is behind."""

    since: Place  # where they begin
    at: Place  # how far they were looked at
    count: int
    last: int  # number of the last record when that began
    is_cut: bool


class Spool:
    """Reads on from a place.

    Args:
        folder: Of the trail.
        last: Tells the last record that is on the disk: what comes after it may still be taken back.
    """

    def __init__(self, folder: Path, last: Callable[[], int]) -> None:
        self._folder, self._last = folder, last
        self._ahead: _Ahead | None = None

    def following(self, place: Place) -> Step:
        """Returns the next records, and the place after them; lines that are no records are passed over.

        A number that no record has yet is waited for, as what is not on the disk may still be taken back; with a true
        record behind it, it is forged: they are written in order. No line is looked at twice for that till there is a
        new record.
        """
        last, ahead = self._last(), self._ahead
        if ahead and (ahead.since != place or (ahead.last < last and not ahead.is_cut)):
            ahead = None
        step, at, held = Step(place), ahead.at if ahead else place, ahead.count if ahead else 0
        last = ahead.last if ahead else last  # who waits behind a busy server's records would begin anew for ever
        size = 0
        for at_next, line, is_whole in self._lines(at):
            if size >= STEP_BYTES or len(step.found) == AT_ONCE:
                step.is_cut = True
                break
            size += len(line)
            kept = _readable(line) if is_whole else None
            if kept and kept.seq <= last and (not held or kept.seq > step.place.seq):
                step.found.append(kept)
                step.strange, held = step.strange + held, 0
                step.place = Place(kept.seq, at_next.file, at_next.offset)
            elif held or (kept and kept.seq > last):
                held += 1
            else:
                step.strange += 1
                step.place = Place(step.place.seq, at_next.file, at_next.offset)
            at = at_next
        self._ahead = _Ahead(step.place, at, held, last, step.is_cut) if held else None
        return step

    def _lines(self, place: Place) -> Iterator[tuple[Place, bytes, bool]]:
        """Yields the place after each line, its line, and whether it has an end; not one whose rest is to come."""
        files = files_in(self._folder)
        for file in files:
            if file.number < place.file:
                continue
            offset = place.offset if file.number == place.file else 0
            if offset > file.path.stat().st_size:  # somebody cut it
                offset = 0
            for start, line, is_whole in lines_in(file.path, offset):
                if not is_whole and file is files[-1] and len(line) < MOST_LINE:
                    return
                yield Place(0, file.number, start + len(line) + is_whole), line, is_whole


def _readable(line: bytes) -> Kept | None:
    try:
        return read(line)
    except ValueError:
        return None
