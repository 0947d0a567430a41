"""Opens the shards of one library: finishes or undoes what was interrupted, and goes on without what is damaged."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from pathlib import Path

from nearcase.index.edge import roster as roster_file
from nearcase.index.edge.engine import create
from nearcase.index.edge.roster import ACTIVE, FROZEN, Entry, Roster
from nearcase.index.edge.shard import Shard
from nearcase.index.edge.shards import Damaged, Shards

FOLDER = "shards"
"""Where the shards are, within the library."""

_FIRST = "000001"

_IDS_AT_ONCE = 1000

_PATIENCE_S = 5.0


def opened(
    library: Path, dimension: int, exact_candidates: int, hopeless: Collection[str], tell: Callable[[str], None]
) -> Shards:
    """Returns the shards of the library, which are made when there are none; the caller holds its lock.

    Args:
        library: The library's folder.
        dimension: Length of the embeddings.
        exact_candidates: Up to how many candidates a graph is left aside.
        hopeless: Names of shards over which this process has died before: not tried again.
        tell: Called with the name of each shard before it is loaded.

    Raises:
        OSError: The disk refuses, or no shard can be read.
        Damaged: There are shards, and the list of them is missing.
    """
    root = library / FOLDER
    roster = _listed(library, root, dimension)
    _sweep(root, roster)
    shards, failures = _loaded(root, roster, dimension, exact_candidates, hopeless, tell)
    if failures and not shards:
        raise OSError(next(iter(failures.values())))
    _mend(root, roster, shards)
    roster = _judged(roster, failures)
    if roster.entries[-1].is_damaged:
        roster, name = roster.with_entry(roster.entries[-1].name, kind=FROZEN).with_new(ACTIVE)
        create(root / name, dimension, ACTIVE)
        shards[name] = Shard(root / name, dimension, ACTIVE, exact_candidates)
    roster_file.write(root, roster)
    return Shards(root, dimension, exact_candidates, roster, shards)


def _listed(library: Path, root: Path, dimension: int) -> Roster:
    """Reads what there is; takes over the one shard of a library from before there were several."""
    roster = roster_file.read(root) if root.exists() else None
    if roster is not None:
        return roster
    root.mkdir(mode=0o700, exist_ok=True)
    _refuse_unlisted(root)
    is_new = False
    if (library / "points").exists():
        (library / "points").rename(root / _FIRST)
    elif not (root / _FIRST).exists():
        create(root / _FIRST, dimension, ACTIVE)
        is_new = True
    roster_file.sync(root)
    roster_file.sync(library)
    roster = Roster(2, (Entry(_FIRST, ACTIVE, is_dirty=not is_new),))  # nobody knows what an older one has deleted
    roster_file.write(root, roster)
    return roster


def _refuse_unlisted(root: Path) -> None:
    """One shard alone is what a crash leaves before the first list is written; of several, a list was lost."""
    found = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.endswith(".new"))
    if set(found) - {_FIRST}:
        names = ", ".join(found)
        raise Damaged(f"shards/shards.json is missing beside {names}; restore it, or the library, from a backup")


def _sweep(root: Path, roster: Roster) -> None:
    """Removes what is not listed: unfinished shards, and sources of finished ones."""
    listed = {entry.name for entry in roster.entries}
    for entry in root.iterdir():
        if entry.is_dir() and entry.name not in listed:
            _remove(entry)


def _remove(folder: Path) -> None:
    """A builder dies with its parent, but not in the same moment: it may still be writing into the folder."""
    until_s = time.monotonic() + _PATIENCE_S
    while True:
        try:
            shutil.rmtree(folder)
        except FileNotFoundError:
            return
        except OSError:
            if time.monotonic() > until_s:
                raise
            time.sleep(0.05)
        else:
            return


def _loaded(
    root: Path,
    roster: Roster,
    dimension: int,
    exact_candidates: int,
    hopeless: Collection[str],
    tell: Callable[[str], None],
) -> tuple[dict[str, Shard], dict[str, str]]:
    """Returns the open shards, and of each other why it is not."""
    shards: dict[str, Shard] = {}
    failures: dict[str, str] = {}
    for entry in roster.entries:
        if entry.name in hopeless:
            failures[entry.name] = f"the index process ended over {entry.name}"
            continue
        tell(entry.name)
        try:
            shards[entry.name] = Shard(root / entry.name, dimension, entry.kind, exact_candidates)
        except BaseException as error:  # a panic of the engine is no Exception
            failures[entry.name] = " ".join(str(error).split()) or type(error).__name__
    return shards, failures


def _judged(roster: Roster, failures: Collection[str]) -> Roster:
    """Marks what is damaged, and that the library is open; after a crash, whatever half-written bytes it may hold."""
    last = roster.entries[-1].name
    entries = (
        replace(e, is_damaged=e.name in failures, is_dirty=e.is_dirty or (roster.is_open and e.name == last))
        for e in roster.entries
    )
    return replace(roster, entries=tuple(entries), is_open=True)


def _mend(root: Path, roster: Roster, shards: dict[str, Shard]) -> None:
    """Completes deletions and moves that were interrupted, so that every point lies in one shard only."""
    if deleting := roster_file.read_deleting(root):
        for shard in shards.values():
            _delete_held(shard, deleting)
        roster_file.end_deleting(root)
    for entry in roster.entries:
        if entry.is_damaged and entry.name in shards:  # it can be read again: what others have is newer
            _yield_to_others(shards[entry.name], [s for name, s in shards.items() if name != entry.name])
    active = shards.get(roster.entries[-1].name)
    if roster.is_open and active is not None:
        for names in _names(active):
            for shard in shards.values():
                if shard is not active:
                    _delete_held(shard, names)


def _yield_to_others(shard: Shard, others: list[Shard]) -> None:
    for names in _names(shard):
        for other in others:
            if newer := other.held(names):
                shard.delete(newer)


def _delete_held(shard: Shard, names: list[str]) -> None:
    if held := shard.held(names):
        shard.delete(held)
        shard.flush()


def _names(shard: Shard) -> Iterator[list[str]]:
    """Yields every id, some at a time."""
    cursor: str | None = None
    while True:
        names = shard.names(_IDS_AT_ONCE + 1, cursor, None)
        yield names[:_IDS_AT_ONCE]
        if len(names) <= _IDS_AT_ONCE:
            return
        cursor = names[_IDS_AT_ONCE]
