"""What the folder `shards` holds, in shards.json: replaced whole and durably, so that it is always one of two truths.

{"format_version": 1, "next_number": 3, "is_open": false,
 "shards": [{"name": "000001", "kind": "sealed", "is_dirty": false, "is_owed": false, "is_damaged": false}, ...]}

A folder that is not listed is what an interrupted step left behind. `deleting.json` beside it lists the ids of a
deletion in several shards that is under way. Runs in the index process.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

FORMAT_VERSION = 1

ACTIVE, FROZEN, PLAIN, SEALED = "active", "frozen", "plain", "sealed"
"""Kinds: takes writes; full, and waits to be rewritten; rewritten without a graph; rewritten with one."""

_NAME, _DELETING = "shards.json", "deleting.json"


@dataclass(frozen=True, slots=True)
class Entry:
    """One shard, a folder of this name."""

    name: str
    kind: str
    is_dirty: bool = False  # its files may still hold bytes of points that it no longer has
    is_owed: bool = False  # an erasure waits for it to be rewritten
    is_damaged: bool = False  # it could not be loaded, and missed what was written meanwhile


@dataclass(frozen=True, slots=True)
class Roster:
    """Every shard, oldest first; the last is the active one."""

    next_number: int
    entries: tuple[Entry, ...]
    is_open: bool = False  # still set when it is read: the last process did not close

    def with_entry(self, name: str, **changes: bool | str) -> Roster:
        """Returns the roster with the entry changed."""
        entries = (replace(e, **changes) if e.name == name else e for e in self.entries)  # type: ignore[arg-type]
        return replace(self, entries=tuple(entries))

    def with_new(self, kind: str) -> tuple[Roster, str]:
        """Returns the roster with another shard at its end, and the name of that."""
        name = f"{self.next_number:06}"
        return replace(self, next_number=self.next_number + 1, entries=(*self.entries, Entry(name, kind))), name


def read(folder: Path) -> Roster | None:
    """Returns what shards.json says; None where there is none.

    Raises:
        OSError: It can not be read, or is damaged.
    """
    try:
        stated = json.loads((folder / _NAME).read_bytes())
        if stated["format_version"] != FORMAT_VERSION:
            raise OSError(f"{_NAME} is of format {stated['format_version']}, and this is {FORMAT_VERSION}")
        entries = tuple(Entry(**entry) for entry in stated["shards"])
        return Roster(int(stated["next_number"]), entries, bool(stated["is_open"]))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError, RecursionError):
        raise OSError(f"{_NAME} is damaged; restore the folder from a backup") from None


def write(folder: Path, roster: Roster) -> None:
    """Replaces shards.json; on the disk when it returns."""
    shards = [asdict(entry) for entry in roster.entries]
    stated = {"format_version": FORMAT_VERSION, "next_number": roster.next_number, "is_open": roster.is_open}
    _replace(folder / _NAME, json.dumps(stated | {"shards": shards}, indent=1))


def read_deleting(folder: Path) -> list[str]:
    """Returns the ids of an unfinished deletion.

    Raises:
        OSError: The list is damaged.
    """
    try:
        return [str(name) for name in json.loads((folder / _DELETING).read_bytes())]
    except FileNotFoundError:
        return []
    except (ValueError, TypeError, RecursionError):
        raise OSError(f"{_DELETING} is damaged; restore the folder from a backup") from None


def write_deleting(folder: Path, names: Sequence[str]) -> None:
    """States which points are about to be deleted from several shards, until `end_deleting`."""
    _replace(folder / _DELETING, json.dumps(list(names)))


def end_deleting(folder: Path) -> None:
    """States that the deletion is complete; on the disk when it returns, so that no later point falls to it."""
    (folder / _DELETING).unlink(missing_ok=True)
    sync(folder)


def sync(folder: Path) -> None:
    """Puts what was renamed, made or removed in the folder on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _replace(path: Path, text: str) -> None:
    unfinished = path.with_name(path.name + ".new")
    with unfinished.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
    sync(path.parent)
