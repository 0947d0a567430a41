"""What a trail is found as when it is opened: after a stop, a kill -9, a full disk, or somebody's hand.

What is after the head and sealed was written in the last moment of a process that died, and counts. What is after it
and is not sealed was cut short: it is set aside in a file of its own, and a record says so. What is not where the head
says was there and is gone: a record says that too, and the trail goes on after it, so that the gap stays for good.
Where the head itself is gone nobody knows how much else is: a record says so, and a number is left out before it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from nearcase.audit.event import DAMAGED, TORN
from nearcase.audit.files import TrailFile, files_in, lines_in
from nearcase.audit.head import Head
from nearcase.audit.key import AuditKey, sync_folder
from nearcase.audit.line import Kept, hash_of, is_sealed, read

ASIDE = "torn"
"""What files of cut lines begin with."""


@dataclass(slots=True)
class Recovered:
    """Where the trail goes on, and what must be told first."""

    head: Head
    last_file: int = 0  # largest number that is taken, in a row with those before it
    day: str = ""  # of that file
    can_append: bool = False  # to the file of the head
    is_new: bool = False  # there is nothing yet, and never was
    found: list[tuple[str, int, str]] = field(default_factory=list)  # kind, count, words


def recover(folder: Path, key: AuditKey, head: Head | None, *, was_begun: bool) -> Recovered:
    """Returns where the trail goes on; OSError where the folder can not be read or mended.

    Args:
        folder: Of the trail; this process has its lock.
        key: Its key.
        head: As it was read; None where it is missing or was changed.
        was_begun: There was a trail once.
    """
    files = files_in(folder)
    state = Recovered(head or _last_sealed(files, key))
    if head is None and not files and not was_begun:
        state.is_new = True
        return state
    if head is None:
        state.found.append((DAMAGED, 0, "the head is missing or was changed; records at the end may be missing"))
    elif not _holds(files, head):
        state.found.append((DAMAGED, head.seq, f"record {head.seq}, the last, is not where it was written"))
        _number(state, files)
        return state
    _go_on(state, folder, files, key)
    _number(state, files_in(folder))
    state.can_append = state.head.seq > 0 and state.last_file == state.head.file
    if head is None:  # the gap is seen also where the record of it is taken away in turn
        state.head = replace(state.head, seq=state.head.seq + 1)
    return state


def _number(state: Recovered, files: Sequence[TrailFile]) -> None:
    """What somebody put far behind does not push the numbers on."""
    days = {file.number: file.day for file in files}
    state.last_file = state.head.file
    while state.last_file + 1 in days:
        state.last_file += 1
    state.day = days.get(state.last_file, "")


def _holds(files: Sequence[TrailFile], head: Head) -> bool:
    """Returns whether the last record is there, whole."""
    if not head.seq:
        return True
    for file in files:
        if file.number == head.file:
            with file.path.open("rb") as opened:
                opened.seek(head.start)
                line = opened.read(head.end - head.start)
            return line.endswith(b"\n") and hash_of(line[:-1]) == head.sha256
    return False


def _go_on(state: Recovered, folder: Path, files: Sequence[TrailFile], key: AuditKey) -> None:
    """Takes in what is sealed after the head, and sets the rest aside."""
    is_cut = False
    for file in files:
        if file.number < state.head.file:
            continue
        begin = state.head.end if file.number == state.head.file else 0
        end = begin if is_cut else _take(state, file, begin, key)
        size = file.path.stat().st_size
        if size > end:
            is_cut = True
            state.found.append((TORN, size - end, _set_aside(folder, file, end)))
        if end == 0:  # it was begun, and nothing was written into it
            file.path.unlink()
            sync_folder(folder)


def _take(state: Recovered, file: TrailFile, begin: int, key: AuditKey) -> int:
    """Returns where the sealed records that follow the head end."""
    for head in _sealed(file, begin, key, state.head):
        state.head = head
        begin = head.end
    return begin


def _sealed(file: TrailFile, begin: int, key: AuditKey, after: Head) -> Iterator[Head]:
    for start, line, is_whole in lines_in(file.path, begin):
        kept = _kept(line, key) if is_whole else None
        if kept is None or (kept.seq, kept.prev) != (after.seq + 1, after.sha256):
            return
        after = Head(kept.seq, kept.sha256, file.number, start, start + len(line) + 1)
        yield after


def _last_sealed(files: Sequence[TrailFile], key: AuditKey) -> Head:
    """Returns the head as the records have it, where there is none; the first file that has any is enough."""
    for file in reversed(files):
        found = Head()
        for start, line, is_whole in lines_in(file.path):
            kept = _kept(line, key) if is_whole else None
            if kept:
                found = Head(kept.seq, kept.sha256, file.number, start, start + len(line) + 1)
        if found.seq:
            return found
    return Head()


def _kept(line: bytes, key: AuditKey) -> Kept | None:
    try:
        return read(line) if is_sealed(line, key) else None
    except ValueError:
        return None


def _set_aside(folder: Path, file: TrailFile, end: int) -> str:
    """Moves what follows into a file of its own; returns words with its name and hash."""
    with file.path.open("rb") as opened:
        opened.seek(end)
        data = opened.read()
    digest = hashlib.sha256(data).hexdigest()
    name = f"{ASIDE}-{file.number:08d}-{end}-{digest[:8]}"
    with (folder / name).open("wb") as aside:
        os.fchmod(aside.fileno(), 0o600)
        aside.write(data)
        aside.flush()
        os.fsync(aside.fileno())
    sync_folder(folder)
    with file.path.open("r+b") as opened:
        opened.truncate(end)
        os.fsync(opened.fileno())
    return f"what was cut short is in {name}, SHA-256 {digest}"
