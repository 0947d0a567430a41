"""The library of prior cases: what was acknowledged is durable, what was refused left nothing."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from nearcase.errors import InvalidInput, NearcaseError, NotFound, Unready
from nearcase.index.base import Point
from nearcase.index.filters import And, Equals, Filter, In
from nearcase.retrieve.annotations import Annotations
from nearcase.retrieve.bulk import change
from nearcase.retrieve.cases import THUMBNAIL, patient_key, stamped, to_case, to_payload
from nearcase.retrieve.corrections import Correction, corrected, moved, renewed
from nearcase.retrieve.counting import Statistics, statistics, values_of
from nearcase.retrieve.exactness import Exactness
from nearcase.retrieve.pending import AddOutcome, Pending, fail, outcome_of
from nearcase.retrieve.proof import found_again, probes
from nearcase.retrieve.snapshot import Snapshot
from nearcase.retrieve.stamps import Stamps
from nearcase.retrieve.unbroken import Unbroken
from nearcase.transfers import ImportCounts, StoredCase
from nearcase.types import Case

if TYPE_CHECKING:
    from nearcase.clock import Clock
    from nearcase.index.base import Index
    from nearcase.types import Embedding

MAX_COMMIT = 64
"""Cases in one durable write; one flush serves them all."""

PAGE = 1000


@dataclass(frozen=True, slots=True)
class CasePage:
    """One page of cases in the order of their ids."""

    cases: tuple[Case, ...]
    next_cursor: str | None
    total: int


@dataclass(frozen=True, slots=True)
class Removal:
    """What was erased, and what a search for it found afterwards."""

    cases: tuple[Case, ...]  # without thumbnails
    is_rewritten: bool  # False: a server rewrites the files later, on its own
    found_again_count: int


class Library:
    """Adds, reads and erases cases; one writer, so that the outcome of each add is true.

    What waits for the writer is committed together: one flush to disk for up to MAX_COMMIT cases.
    """

    def __init__(self, index: Index, clock: Clock) -> None:
        self._index, self._clock = index, clock
        self._pending: asyncio.Queue[Pending] = asyncio.Queue(maxsize=4 * MAX_COMMIT)
        self._writing = asyncio.Lock()
        self._writer: asyncio.Task[None] | None = None
        self._unbroken = Unbroken()
        self._stamps = Stamps(index, clock)
        self.exactness = Exactness(index)
        self._snapshot: Snapshot | None = None  # None until it is asked for, and after a write whose end is not known
        self._writes = 0

    def start(self) -> None:
        """Starts the writer in the running event loop."""
        self._writer = asyncio.get_running_loop().create_task(self._write(), name="library-writer")

    async def close(self) -> None:
        """Commits what waits, then closes the index."""
        await self._pending.join()
        await self._unbroken.settled()
        if self._writer:
            self._writer.cancel()
            await asyncio.gather(self._writer, return_exceptions=True)
        await self._index.close()

    async def add(self, case: Case, given: Annotations, vector: Embedding, changed_by: str = "") -> AddOutcome:
        """Returns when the case is durable.

        Args:
            case: As its file states it.
            given: What is known besides; what was given to the same image before is kept where this is silent.
            vector: Its embedding.
            changed_by: Who says so; kept in the history where this changes a label.
        """
        done: asyncio.Future[AddOutcome] = asyncio.get_running_loop().create_future()
        await self._pending.put(Pending(case, given, vector, changed_by, done))
        return await done

    async def known(self, content_sha256: str) -> Sequence[Case]:
        """Returns the cases that were made from a file of these bytes, without thumbnails."""
        page = await self._index.scroll(limit=100, where=Equals("content_sha256", content_sha256), without=(THUMBNAIL,))
        return [to_case(record.point_id, record.payload) for record in page.records]

    async def get(self, where: str | Filter) -> tuple[Case, Embedding]:
        """Returns a case by its id, or the first that a filter finds, with its embedding.

        Raises:
            NotFound: There is none.
        """
        case_id = where if isinstance(where, str) else await self._first(where)
        records = await self._index.get([case_id], with_vectors=True) if case_id else []
        if not records or records[0].vector is None:
            raise NotFound("no such case in this library", reason="CASE_NOT_FOUND")
        return to_case(records[0].point_id, records[0].payload), records[0].vector

    async def page(self, *, limit: int, cursor: str | None, where: Filter | None, with_thumbnails: bool) -> CasePage:
        """Returns one page of the cases that match."""
        without = () if with_thumbnails else (THUMBNAIL,)
        page = await self._index.scroll(limit=limit, cursor=cursor, where=where, without=without)
        cases = tuple(to_case(record.point_id, record.payload) for record in page.records)
        return CasePage(cases, page.next_cursor, await self._index.count(where))

    async def update(self, where: str | Filter, correction: Correction) -> list[Case]:
        """Returns the cases as they are after the correction, in the order of their ids; equal ones are not written.

        A crash leaves some of many as they were; the same call then corrects the rest.

        Args:
            where: The id of one case, or which cases: an image of several frames may be several.
            correction: What to change of each.

        Raises:
            NotFound: There is no such case.
            InvalidInput: The correction can not be made of one of them, see `corrected`; then none is changed.
        """
        return await self._unbroken.run(self._update(where, correction))

    async def _update(self, where: str | Filter, correction: Correction) -> list[Case]:
        async with self._writing:
            found = [await self.get(where)] if isinstance(where, str) else await self._some(where, sys.maxsize)
            if not found:
                raise NotFound("no such case in this library", reason="CASE_NOT_FOUND")
            now_s = self._clock.now_s()
            every = [(case, corrected(case, correction, now_s), vector) for case, vector in found]
            changes = [change for change in every if change[0] != change[1]]
            for start in range(0, len(changes), MAX_COMMIT):
                await self._replace(changes[start : start + MAX_COMMIT])
            return [after for _, after, _ in every]

    async def merge(self, gone: Filter, stays: Filter, changed_by: str = "") -> int:
        """Gives the cases of one patient to another and returns how many that were; their embeddings stay.

        A crash leaves some of them with each; the same call then moves the rest.

        Args:
            gone: The cases of the patient id that goes.
            stays: Those of the id that stays.
            changed_by: Who says so; kept in the history.

        Raises:
            NotFound: The patient who stays has no case here.
            InvalidInput: Both are one.
        """
        return await self._unbroken.run(self._merge(gone, stays, changed_by))

    async def _merge(self, gone: Filter, stays: Filter, changed_by: str) -> int:
        count = 0
        async with self._writing:
            to = await self._some(stays, 1)
            if not to:
                raise NotFound("the patient who stays has no case in this library", reason="PATIENT_NOT_FOUND")
            while cases := await self._some(gone, MAX_COMMIT):
                if any(_patient(case) == _patient(to[0][0]) for case, _ in cases):
                    raise InvalidInput("expected two patients to merge, got one", field="into")
                now_s = self._clock.now_s()
                await self._replace(
                    [(case, moved(case, to[0][0], now_s, changed_by), vector) for case, vector in cases]
                )
                count += len(cases)
        return count

    async def erase(self, where: Filter, intend: Callable[[Sequence[Case]], Awaitable[None]]) -> Removal | None:
        """Removes what matches, from the index's files too; a case being added is added before or after.

        The index is told the ids of the cases only: it writes down what it is asked to delete, and `where` may hold
        the real id of a patient whom a de-identified library does not know.

        Args:
            where: Which cases.
            intend: Is told which they are, and returns when that is written down: what follows may be cut short.

        Returns:
            What was removed; None where nothing matched.
        """
        async with self._writing:
            cases = [case async for case in self._cases(where)]
            if not cases:
                return None
            names = [case.case_id for case in cases]
            vectors = await probes(self._index, names)
            await intend(cases)
            known = self._unnamed()
            deleted = await self._index.delete(In("case_id", tuple(names)))
            if known is not None and deleted == len(cases):
                for case in cases:
                    known.remove(case)
                self._snapshot = known  # so that no decision waits for the files
            erased = await self._index.erase(names)
            return Removal(tuple(cases), erased.is_rewritten, await found_again(self._index, names, vectors))

    async def rewrite(self) -> bool:
        """Rewrites the files that hold bytes of what was deleted; False where a server does that on its own."""
        async with self._writing:
            return (await self._index.erase([])).is_rewritten

    async def put(self, cases: Sequence[StoredCase], is_erased: Callable[[Case], bool]) -> tuple[ImportCounts, ...]:
        """Stores cases of another library in one write, each joined with what is here of it; one outcome for each.

        `is_erased` tells whether a case was erased here after it was added there; no erasure is in progress then.
        """
        return await self._unbroken.run(self._put(cases, is_erased))

    async def _put(self, cases: Sequence[StoredCase], is_erased: Callable[[Case], bool]) -> tuple[ImportCounts, ...]:
        async with self._writing:
            found = await change(self._index, cases, is_erased)
            if found.written:
                known = self._unnamed()
                await self._index.upsert(found.points(await self._stamps.next_s()))
                self._snapshot = _moved(known, found.before, [new.case for new in found.written])
            return found.outcomes

    async def snapshot(self) -> str:
        """Returns the name of the library's state, see `snapshot`; the first time, all cases are read.

        Where other servers write too, what this one remembers says nothing, and the index names its state.
        """
        if (generation := await self._index.generation()) is not None:
            return generation
        if self._snapshot is not None:  # never while a write is in progress
            return self._snapshot.name
        async with self._writing:
            if self._snapshot is None:
                found = Snapshot()
                async for case in self._cases(None):
                    found.add(case)
                self._snapshot = found
            return self._snapshot.name

    async def state(self) -> tuple[str, int]:
        """Returns the name of the library's state, and how often this server began to write since it started.

        Equal pairs mean equal embeddings too, and equal times of the last write, of which the name alone says nothing.
        """
        name = await self.snapshot()
        return name, self._writes

    @property
    def known_snapshot(self) -> str:
        """The same where it is known already; "" where cases would have to be read for it, or the index asked."""
        return self._snapshot.name if self._snapshot is not None else ""

    async def count(self, where: Filter | None = None) -> int:
        """Returns how many cases match."""
        return await self._index.count(where)

    async def labels(self) -> dict[str, int]:
        """Returns how many cases have each label, most frequent first."""
        return await self._index.facet("label_names", limit=1000)

    async def values(self, label: str, where: Filter) -> dict[str, int]:
        """Returns how many of the cases that match have each value of a label."""
        return await values_of(self._index, label, where)

    async def statistics(self) -> Statistics:
        """Counts the whole library."""
        return await statistics(self._index)

    async def matching(
        self, where: Filter | None, is_meant: Callable[[Case], bool], limit: int = sys.maxsize
    ) -> list[str]:
        """Returns the ids of the cases that a filter keeps and a test chooses, at most as many as the limit says."""
        found: list[str] = []
        async for case in self._cases(where, min(limit, PAGE)):
            if len(found) == limit:
                break
            if is_meant(case):
                found.append(case.case_id)
        return found

    async def _cases(self, where: Filter | None, page_size: int = PAGE) -> AsyncIterator[Case]:
        cursor = None
        while True:
            page = await self._index.scroll(limit=page_size, cursor=cursor, where=where, without=(THUMBNAIL,))
            for record in page.records:
                yield to_case(record.point_id, record.payload)
            cursor = page.next_cursor
            if cursor is None:
                return

    async def _first(self, where: Filter) -> str | None:
        page = await self._index.scroll(limit=1, where=where, without=(THUMBNAIL,))
        return page.records[0].point_id if page.records else None

    async def _some(self, where: Filter, limit: int) -> list[tuple[Case, Embedding]]:
        """The first cases that a filter finds, whole."""
        names = await self.matching(where, lambda _: True, limit)
        found: list[tuple[Case, Embedding]] = []
        for start in range(0, len(names), MAX_COMMIT):
            records = await self._index.get(names[start : start + MAX_COMMIT], with_vectors=True)
            found += [
                (to_case(each.point_id, each.payload), each.vector) for each in records if each.vector is not None
            ]
        return found

    async def _replace(self, changes: Sequence[tuple[Case, Case, Embedding]]) -> None:
        """Stores cases in the place of what they were; the caller is the one writer."""
        known, at_s = self._unnamed(), await self._stamps.next_s()
        await self._index.upsert(
            [Point(after.case_id, vector, stamped(to_payload(after), at_s)) for _, after, vector in changes]
        )
        before = {case.case_id: case for case, _, _ in changes}
        self._snapshot = _moved(known, before, [after for _, after, _ in changes])

    def _unnamed(self) -> Snapshot | None:
        """Takes the name away while the one writer changes what it names."""
        known, self._snapshot, self._writes = self._snapshot, None, self._writes + 1
        return known

    async def _write(self) -> None:
        while True:
            batch = [await self._pending.get()]
            while len(batch) < MAX_COMMIT and not self._pending.empty():
                batch.append(self._pending.get_nowait())
            try:
                async with self._writing:
                    await self._commit_all(batch)
            except NearcaseError as error:
                fail(batch, error)
            except Exception:
                fail(batch, Unready("the index failed to store the case", reason="INDEX_FAILED"))
            finally:
                for _ in batch:
                    self._pending.task_done()

    async def _commit_all(self, batch: Sequence[Pending]) -> None:
        """Together; where the index refuses one of them, each alone, so that it fails alone."""
        try:
            await self._commit(batch)
        except InvalidInput:
            if len(batch) == 1:
                raise
            for pending in batch:
                try:
                    await self._commit([pending])
                except InvalidInput as error:
                    fail([pending], error)

    async def _commit(self, batch: Sequence[Pending]) -> None:
        records = await self._index.get(list({pending.case.case_id for pending in batch}))
        cases = {record.point_id: to_case(record.point_id, record.payload) for record in records}
        before = dict(cases)
        changed: dict[str, Point] = {}
        outcomes: list[AddOutcome] = []
        now_s, at_s = self._clock.now_s(), await self._stamps.next_s()
        for pending in batch:  # in the order of coming, so that two of one image add up
            stored = cases.get(pending.case.case_id)
            case = renewed(pending.case, pending.given, stored, now_s, pending.changed_by)
            outcomes.append(outcome_of(case, stored))
            if outcomes[-1] is not AddOutcome.UNCHANGED:
                cases[case.case_id] = replace(case, added_at_s=now_s)
                payload = stamped(to_payload(cases[case.case_id]), at_s)
                changed[case.case_id] = Point(case.case_id, pending.vector, payload)
        if changed:
            known = self._unnamed()
            await self._index.upsert(list(changed.values()))
            self._snapshot = _moved(known, before, [cases[case_id] for case_id in changed])
        for pending, outcome in zip(batch, outcomes, strict=True):
            if not pending.done.done():
                pending.done.set_result(outcome)


def all_of(*parts: Filter | None) -> Filter | None:
    """Joins filters; None is no condition."""
    given = tuple(part for part in parts if part is not None)
    return given[0] if len(given) == 1 else And(given) if given else None


def _patient(case: Case) -> str:
    return patient_key(case.facts.patient_id, case.facts.patient_id_issuer)


def _moved(known: Snapshot | None, before: Mapping[str, Case], written: Sequence[Case]) -> Snapshot | None:
    if known is not None:
        for case in written:
            if case.case_id in before:
                known.remove(before[case.case_id])
            known.add(case)
    return known
