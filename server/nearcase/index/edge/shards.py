"""Every open shard of one library as one index: writes go to the active one, reads are merged over all.

A point lies in one shard only. An upsert of a point that lies in an older shard is stored in the active one and then
deleted there; a crash in between is mended by `edge.opening`. Runs in the index process, which answers one request
after the other, so every method is atomic to its callers.
"""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from nearcase.index.edge import roster as roster_file
from nearcase.index.edge.engine import create
from nearcase.index.edge.roster import ACTIVE, FROZEN, Entry, Roster
from nearcase.index.edge.shard import PlainNeighbour, PlainPoint, PlainRecord, Scored, Shard
from nearcase.index.filters import Filter

PlainPart = tuple[str, str, int, bool, bool, bool]  # name, kind, points, is_dirty, is_owed, is_damaged


class Damaged(Exception):
    """What is asked can not be done to a part that can not be read."""


class JobLost(Exception):
    """The rewriting that is asked to go on is over, or can not be completed; everything is as it was."""


@dataclass(slots=True)
class _Job:
    """A rewriting under way: its sources go on being served, and what leaves them meanwhile is written down."""

    target: str
    sources: tuple[str, ...]
    gone: set[str] = field(default_factory=set)


class Shards:
    """The open shards of one library; made by `edge.opening.opened`."""

    def __init__(
        self, root: Path, dimension: int, exact_candidates: int, roster: Roster, shards: dict[str, Shard]
    ) -> None:
        self._root = root
        self._dimension = dimension
        self._exact_candidates = exact_candidates
        self._roster = roster
        self._shards = shards
        self._job: _Job | None = None

    def upsert(self, points: list[PlainPoint]) -> int:
        """Stores the points, which the journal holds already, and returns how many the active shard has."""
        names = [name for name, _, _ in points]
        held = self._held(names)
        self._soil(held)
        self._active.upsert(points)
        held.pop(self._active_name, None)
        self._delete(held)
        return self._active.point_count

    def flush(self) -> None:
        """Returns when everything is on the disk, so that the journal may be emptied."""
        for shard in self._shards.values():
            shard.flush()

    def search(
        self, vectors: list[bytes], limit: int, where: Filter | None, without: tuple[str, ...], exact: bool
    ) -> list[list[PlainNeighbour]]:
        """Returns (id, similarity, payload) for each vector, most similar first, then by id."""
        found = {name: shard.nearest(vectors, limit, where, exact) for name, shard in self._shards.items()}
        best = [_merged([lists[n] for lists in found.values()], limit) for n in range(len(vectors))]
        wanted = {name for ranked in best for name, _ in ranked}
        payloads: dict[str, PlainRecord] = {}
        for shard_name, lists in found.items():
            here = [name for ranked in lists for name, _ in ranked if name in wanted]
            if here:
                payloads |= self._shards[shard_name].get(here, without, False)
        return [[(name, similarity, payloads[name][1]) for name, similarity in ranked] for ranked in best]

    def get(self, names: list[str], without: tuple[str, ...], with_vectors: bool) -> list[PlainRecord]:
        """Returns the points that exist, in the order asked."""
        by_name: dict[str, PlainRecord] = {}
        for shard in self._shards.values():
            if shard.point_count:
                by_name |= shard.get(names, without, with_vectors)
        return [by_name[name] for name in names if name in by_name]

    def scroll(
        self, limit: int, cursor: str | None, where: Filter | None, without: tuple[str, ...], with_vectors: bool
    ) -> tuple[list[PlainRecord], str | None]:
        """Returns one page in the order of ids, and the id that the next starts with."""
        names = sorted(name for shard in self._shards.values() for name in shard.names(limit + 1, cursor, where))
        return self.get(names[:limit], without, with_vectors), names[limit] if len(names) > limit else None

    def count(self, where: Filter | None) -> int:
        """Returns how many points match."""
        return sum(shard.count(where) for shard in self._shards.values())

    def facet(self, field_name: str, where: Filter | None, limit: int) -> list[tuple[str, int]]:
        """Returns (value, count), most frequent first, then by value."""
        counts: Counter[str] = Counter()
        for shard in self._shards.values():
            counts.update(shard.facet(field_name, where))
        return sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:limit]

    def delete(self, where: Filter) -> int:
        """Deletes what matches and returns how many that was, when the disk knows."""
        self._refuse_damage()
        matching = {name: shard.names(shard.point_count + 1, None, where) for name, shard in self._shards.items()}
        return self._delete_durably({name: found for name, found in matching.items() if found})

    def erase(self, names: list[str]) -> tuple[int, bool, bool]:
        """Deletes the points, and marks every shard that may hold a byte of them as owed a rewriting.

        Returns how many points that was, whether anything is owed, and whether the rewriting under way was given up.
        """
        self._refuse_damage()
        held = self._held(names)
        owed = {entry.name for entry in self._roster.entries if entry.is_dirty or entry.is_owed} | held.keys()
        self._change(owed, is_dirty=True, is_owed=True)
        count = self._delete_durably(held)
        if self._active_name in owed:
            self.freeze()
        is_lost = self._job is not None and not owed.isdisjoint(self._job.sources)
        if is_lost:
            self._job = None
        return count, bool(owed), is_lost

    def freeze(self) -> None:
        """Starts a new active shard; the one before takes no more points."""
        roster, name = self._roster.with_entry(self._active_name, kind=FROZEN).with_new(ACTIVE)
        create(self._root / name, self._dimension, ACTIVE)
        shard = Shard(self._root / name, self._dimension, ACTIVE, self._exact_candidates)
        self._commit(roster)
        self._shards[name] = shard

    def parts(self) -> list[PlainPart]:
        """Returns every shard, oldest first."""
        return [
            (
                e.name,
                e.kind,
                0 if e.is_damaged else self._shards[e.name].point_count,
                e.is_dirty,
                e.is_owed,
                e.is_damaged,
            )
            for e in self._roster.entries
        ]

    # A rewriting: begin, a page after the other, and swap. Its pages are read between other requests.

    def begin(self, sources: tuple[str, ...]) -> str:
        """Starts to write down what leaves the sources, and returns a name for what is made of them."""
        target = f"{self._roster.next_number:06}"  # never given out again, so that no two builders share a folder
        self._commit(replace(self._roster, next_number=self._roster.next_number + 1))
        self._job = _Job(target, sources)
        return target

    def page(self, target: str, source: str, cursor: str | None, limit: int) -> tuple[bytes, int, str | None]:
        """Returns some points of a source, pickled for the builder, how many, and where the next page starts."""
        self._checked_job(target)
        points, following = self._shards[source].page(limit, cursor)
        return pickle.dumps(points, pickle.HIGHEST_PROTOCOL), len(points), following

    def swap(self, target: str, kind: str, point_count: int) -> list[str]:
        """Puts what the builder made in the place of its sources, whose folders the caller may then remove.

        Raises:
            JobLost: The job was given up, or what was built is not whole, or the disk refuses.
        """
        job = self._checked_job(target)
        self._job = None
        made = self._loaded(job, kind, point_count) if point_count else None
        entry = Entry(target, kind, is_dirty=bool(job.gone))
        entries = [entry if e.name == job.sources[0] else e for e in self._roster.entries]
        kept = tuple(e for e in entries if e.name not in job.sources and (made is not None or e is not entry))
        try:
            self._commit(replace(self._roster, entries=kept))
        except OSError as error:
            if made is not None:
                made.close()
            if roster_file.read(self._root) != self._roster:
                raise  # it took the place and is not synced: which of the two holds is told by the next opening
            raise JobLost(error.strerror) from error
        if made is not None:
            self._shards[target] = made
        for source in job.sources:
            self._shards.pop(source).close()
        return list(job.sources)

    def _loaded(self, job: _Job, kind: str, point_count: int) -> Shard:
        """Opens what was built and takes from it what has left the sources since."""
        folder = self._root / job.target
        shard: Shard | None = None
        try:
            folder.with_name(folder.name + ".new").rename(folder)
            roster_file.sync(self._root)
            shard = Shard(folder, self._dimension, kind, self._exact_candidates)
            if shard.point_count != point_count:
                raise OSError(f"{point_count} points were rewritten and {shard.point_count} are there")
            if gone := shard.held(list(job.gone)):
                shard.delete(gone)
                shard.flush()
        except Exception as error:  # the engine raises no narrower one
            if shard is not None:
                shard.close()
            raise JobLost(" ".join(str(error).split())) from error
        return shard

    def _checked_job(self, target: str) -> _Job:
        if self._job is None or self._job.target != target:
            raise JobLost("it was given up")
        return self._job

    def close(self) -> None:
        """Lets go of the files; everything acknowledged is on the disk since before."""
        for shard in self._shards.values():
            shard.close()
        self._commit(replace(self._roster, is_open=False))

    @property
    def _active_name(self) -> str:
        return self._roster.entries[-1].name

    @property
    def _active(self) -> Shard:
        return self._shards[self._active_name]

    def _held(self, names: Sequence[str]) -> dict[str, list[str]]:
        """Which of the points lie where."""
        held = {name: shard.held(names) for name, shard in self._shards.items()}
        return {name: found for name, found in held.items() if found}

    def _delete_durably(self, held: Mapping[str, list[str]]) -> int:
        """Deletes from every shard or, after a crash, at the next opening."""
        self._soil(held)
        names = [name for found in held.values() for name in found]
        if len(held) > 1:
            roster_file.write_deleting(self._root, names)
        self._delete(held)
        self.flush()
        if len(held) > 1:
            roster_file.end_deleting(self._root)
        return len(names)

    def _delete(self, held: Mapping[str, list[str]]) -> None:
        for shard_name, names in held.items():
            if self._job is not None and shard_name in self._job.sources:
                self._job.gone.update(names)
            self._shards[shard_name].delete(names)

    def _soil(self, shard_names: Mapping[str, object]) -> None:
        """Writes down, before it is true, that these shards hold bytes of points that they no longer have."""
        if any(entry.name in shard_names and not entry.is_dirty for entry in self._roster.entries):
            self._change(set(shard_names), is_dirty=True)

    def _change(self, shard_names: set[str], **changes: bool) -> None:
        roster = self._roster
        for name in shard_names:
            roster = roster.with_entry(name, **changes)
        self._commit(roster)

    def _commit(self, roster: Roster) -> None:
        if roster != self._roster:
            roster_file.write(self._root, roster)
            self._roster = roster

    def _refuse_damage(self) -> None:
        damaged = [entry.name for entry in self._roster.entries if entry.is_damaged]
        if damaged:
            raise Damaged(", ".join(damaged))


def _merged(lists: list[Scored], limit: int) -> Scored:
    if len(lists) == 1:
        return lists[0]
    return sorted((pair for scored in lists for pair in scored), key=lambda pair: (-pair[1], pair[0]))[:limit]
