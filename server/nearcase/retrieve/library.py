"""The library of prior cases: what was acknowledged is durable, what was refused left nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING

from nearcase.errors import NearcaseError, NotFound, Unready
from nearcase.index.base import Point
from nearcase.index.filters import And, Equals, Filter, In
from nearcase.retrieve.annotations import Annotations, annotate, given_to, renew
from nearcase.retrieve.cases import THUMBNAIL, to_case, to_payload
from nearcase.retrieve.snapshot import Snapshot
from nearcase.types import Case

if TYPE_CHECKING:
    from nearcase.clock import Clock
    from nearcase.index.base import Index
    from nearcase.types import Embedding

MAX_COMMIT = 64
"""Cases in one durable write; one flush serves them all."""

COUNTED_FIELDS = ("modality", "body_part", "sex", "manufacturer", "source")


class AddOutcome(Enum):
    """What became of an added image."""

    ADDED = "added"
    UNCHANGED = "unchanged"
    REPLACED = "replaced"


@dataclass(frozen=True, slots=True)
class CasePage:
    """One page of cases in the order of their ids."""

    cases: tuple[Case, ...]
    next_cursor: str | None
    total: int


@dataclass(frozen=True, slots=True)
class Statistics:
    """What the library holds."""

    case_count: int
    patient_count: int
    field_counts: dict[str, dict[str, int]]


@dataclass(frozen=True, slots=True)
class _Pending:
    case: Case  # as its file states it
    given: Annotations
    vector: Embedding
    done: asyncio.Future[AddOutcome]


class Library:
    """Adds, reads and erases cases; one writer, so that the outcome of each add is true.

    What waits for the writer is committed together: one flush to disk for up to MAX_COMMIT cases.
    """

    def __init__(self, index: Index, clock: Clock) -> None:
        self._index, self._clock = index, clock
        self._pending: asyncio.Queue[_Pending] = asyncio.Queue(maxsize=4 * MAX_COMMIT)
        self._writing = asyncio.Lock()
        self._writer: asyncio.Task[None] | None = None
        self._snapshot: Snapshot | None = None  # None until it is asked for, and after a write whose end is not known

    def start(self) -> None:
        """Starts the writer in the running event loop."""
        self._writer = asyncio.get_running_loop().create_task(self._write(), name="library-writer")

    async def close(self) -> None:
        """Commits what waits, then closes the index."""
        await self._pending.join()
        if self._writer:
            self._writer.cancel()
            await asyncio.gather(self._writer, return_exceptions=True)
        await self._index.close()

    async def add(self, case: Case, given: Annotations, vector: Embedding) -> AddOutcome:
        """Returns when the case is durable.

        Args:
            case: As its file states it.
            given: What is known besides; what was given to the same image before is kept where this is silent.
            vector: Its embedding.
        """
        done: asyncio.Future[AddOutcome] = asyncio.get_running_loop().create_future()
        await self._pending.put(_Pending(case, given, vector, done))
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

    async def erase(self, where: Filter) -> int:
        """Removes what matches and returns how many cases that was; a case being added is added before or after.

        The index is told the ids of the cases only: it writes down what it is asked to delete, and `where` may hold
        the real id of a patient whom a de-identified library does not know.
        """
        async with self._writing:
            cases = [case async for case in self._cases(where)]
            if not cases:
                return 0
            known, self._snapshot = self._snapshot, None
            erased = await self._index.delete(In("case_id", tuple(case.case_id for case in cases)))
            if known is not None and erased == len(cases):
                for case in cases:
                    known.remove(case)
                self._snapshot = known
            return erased

    async def snapshot(self) -> str:
        """Returns the name of the library's state, see `snapshot`; the first time, all cases are read."""
        if self._snapshot is not None:  # never while a write is in progress
            return self._snapshot.name
        async with self._writing:
            if self._snapshot is None:
                found = Snapshot()
                async for case in self._cases(None):
                    found.add(case)
                self._snapshot = found
            return self._snapshot.name

    async def count(self, where: Filter | None = None) -> int:
        """Returns how many cases match."""
        return await self._index.count(where)

    async def labels(self) -> dict[str, int]:
        """Returns how many cases have each label, most frequent first."""
        return await self._index.facet("label_names", limit=1000)

    async def statistics(self) -> Statistics:
        """Counts the whole library."""
        counts = {field: await self._index.facet(field) for field in COUNTED_FIELDS}
        labels: dict[str, dict[str, int]] = {}
        for pair, count in (await self._index.facet("labels", limit=10_000)).items():
            name, value = pair.split("=", 1)
            labels.setdefault(f"label.{name}", {})[value] = count
        patients = await self._index.facet("patient_key", limit=1_000_000)
        return Statistics(await self._index.count(), len(patients), counts | labels)

    async def _cases(self, where: Filter | None) -> AsyncIterator[Case]:
        cursor = None
        while True:
            page = await self._index.scroll(limit=1000, cursor=cursor, where=where, without=(THUMBNAIL,))
            for record in page.records:
                yield to_case(record.point_id, record.payload)
            cursor = page.next_cursor
            if cursor is None:
                return

    async def _first(self, where: Filter) -> str | None:
        page = await self._index.scroll(limit=1, where=where, without=(THUMBNAIL,))
        return page.records[0].point_id if page.records else None

    async def _write(self) -> None:
        while True:
            batch = [await self._pending.get()]
            while len(batch) < MAX_COMMIT and not self._pending.empty():
                batch.append(self._pending.get_nowait())
            try:
                async with self._writing:
                    await self._commit(batch)
            except NearcaseError as error:
                _fail(batch, error)
            except Exception:
                _fail(batch, Unready("the index failed to store the case", reason="INDEX_FAILED"))
            finally:
                for _ in batch:
                    self._pending.task_done()

    async def _commit(self, batch: Sequence[_Pending]) -> None:
        records = await self._index.get(list({pending.case.case_id for pending in batch}))
        cases = {record.point_id: to_case(record.point_id, record.payload) for record in records}
        before = dict(cases)
        changed: dict[str, Point] = {}
        outcomes: list[AddOutcome] = []
        now_s = self._clock.now_s()
        for pending in batch:  # in the order of coming, so that two of one image add up
            stored = cases.get(pending.case.case_id)
            case = _renewed(pending, stored)
            outcomes.append(_outcome(case, stored))
            if outcomes[-1] is not AddOutcome.UNCHANGED:
                cases[case.case_id] = replace(case, added_at_s=now_s)
                changed[case.case_id] = Point(case.case_id, pending.vector, to_payload(cases[case.case_id]))
        if changed:
            known, self._snapshot = self._snapshot, None
            await self._index.upsert(list(changed.values()))
            self._snapshot = _moved(known, before, [cases[case_id] for case_id in changed])
        for pending, outcome in zip(batch, outcomes, strict=True):
            if not pending.done.done():
                pending.done.set_result(outcome)


def has_label(name: str) -> Filter:
    """Returns a filter for the cases that tell the outcome of a finding."""
    return Equals("label_names", name)


def all_of(*parts: Filter | None) -> Filter | None:
    """Joins filters; None is no condition."""
    given = tuple(part for part in parts if part is not None)
    return given[0] if len(given) == 1 else And(given) if given else None


def _renewed(pending: _Pending, stored: Case | None) -> Case:
    given = renew(given_to(stored), pending.given) if stored else pending.given
    return annotate(pending.case, given)


def _outcome(case: Case, stored: Case | None) -> AddOutcome:
    if stored is None:
        return AddOutcome.ADDED
    same = replace(stored, added_at_s=case.added_at_s, thumbnail_jpeg=case.thumbnail_jpeg) == case
    return AddOutcome.UNCHANGED if same else AddOutcome.REPLACED


def _moved(known: Snapshot | None, before: Mapping[str, Case], written: Sequence[Case]) -> Snapshot | None:
    if known is not None:
        for case in written:
            if case.case_id in before:
                known.remove(before[case.case_id])
            known.add(case)
    return known


def _fail(batch: Sequence[_Pending], error: NearcaseError) -> None:
    for pending in batch:
        if not pending.done.done():
            pending.done.set_exception(error)
