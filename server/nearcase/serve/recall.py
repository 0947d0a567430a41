"""Watches recall: compares searches with exact ones now and then, gently, and keeps the result for all who ask."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from nearcase.convert import recall_to_proto
from nearcase.errors import InvalidInput, NearcaseError
from nearcase.retrieve.recall import Sample, check_recall
from nearcase.v1 import library_pb2

if TYPE_CHECKING:
    from nearcase.clock import Clock
    from nearcase.index.base import Index, IndexState
    from nearcase.types import RecallReport

LEAST = 0.95
"""Below it readiness warns: a graph that was built well finds 0.99."""

FIRST_CHECK_S = 300.0
"""After the start, when a server has other things to do."""

LOOK_EVERY_S = 60.0
"""How soon a part that was sealed since is noticed: it has a new graph, which nobody has checked."""

REST = 19.0
"""A check pauses for so many times of what each of its searches took: 95 % of the index is for others."""

log = logging.getLogger(__name__)


class RecallWatch:
    """Checks after the start, every so many hours, and when a part was sealed; `last` is the newest report."""

    def __init__(self, index: Index, clock: Clock, *, every_hours: float) -> None:
        """Args say what is watched; 0 hours never checks by itself."""
        self._index, self._clock, self._every_s = index, clock, 3600.0 * every_hours
        self._task: asyncio.Task[None] | None = None
        self._asked = asyncio.Lock()
        self._seen: frozenset[str] = frozenset()
        self._checked_at_s: float | None = None  # monotonic
        self.last: RecallReport | None = None

    @property
    def is_low(self) -> bool:
        """Whether the last check found less than LEAST under any filter."""
        return self.last is not None and self.last.worst < LEAST

    def start(self) -> None:
        """Begins to watch in the running event loop."""
        if self._every_s > 0:
            self._task = asyncio.get_running_loop().create_task(self._watch(), name="recall")

    async def stop(self) -> None:
        """Ends a check that is in progress."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def check(self, sample: Sample) -> RecallReport:
        """Returns the recall of the whole library now, and keeps it as the last report."""
        self._seen = _graphs(await self._index.state())
        self.last = await check_recall(self._index, sample, now_s=self._clock.now_s())
        self._checked_at_s = self._clock.monotonic_s()
        if self.is_low:
            # Without the filters: they hold values of cases.
            log.warning("recall is %.3f, below %.2f; see `nearcase library recall-check`", self.last.worst, LEAST)
        return self.last

    async def check_now(self, sample: Sample, index: Index) -> RecallReport:
        """Returns the recall for somebody who waits; one at a time, so that many who ask do not keep searches out.

        Args:
            sample: What to try.
            index: What the caller may see; the report of a tenant's part is for that tenant alone, and is not kept.
        """
        async with self._asked:
            if index is self._index:
                return await self.check(sample)
            return await check_recall(index, sample, now_s=self._clock.now_s())

    def known_to(self, index: Index) -> RecallReport | None:
        """Returns the last report to a caller who may see the whole index: its filters are values of cases."""
        return self.last if index is self._index else None

    async def _watch(self) -> None:
        await asyncio.sleep(FIRST_CHECK_S)
        while True:
            try:
                if await self._is_due():
                    await self.check(Sample(seed=str(self._clock.now_s()), rest=REST))
            except Exception as error:  # whatever an index raises: the watch goes on
                why = error.reason if isinstance(error, NearcaseError) else type(error).__name__
                log.warning("recall was not checked: %s", why)
            await asyncio.sleep(LOOK_EVERY_S)

    async def _is_due(self) -> bool:
        if self._checked_at_s is None or self._clock.monotonic_s() - self._checked_at_s >= self._every_s:
            return True
        state = await self._index.state()
        return not state.is_building and not _graphs(state) <= self._seen


def _graphs(state: IndexState) -> frozenset[str]:
    return frozenset(part.name for part in state.parts if not part.is_exact)


def to_sample(request: library_pb2.CheckRecallRequest) -> Sample:
    """Returns what a request asks for; equal requests of one library draw the same cases.

    Raises:
        InvalidInput: A number is out of range.
    """
    count, k = request.sample_count or 50, request.k or 10
    if not 10 <= count <= 1000:
        raise InvalidInput(f"expected sample_count from 10 to 1000, got {count}", field="sample_count")
    if not 1 <= k <= 100:
        raise InvalidInput(f"expected k from 1 to 100, got {k}", field="k")
    return Sample(count, k)


def state_to_proto(state: IndexState, recall: RecallReport | None) -> library_pb2.IndexState:
    """Returns what an index is made of, with its last report."""
    return library_pb2.IndexState(
        tier=state.tier,
        parts=[
            library_pb2.IndexPart(name=part.name, kind=part.kind, case_count=part.point_count, exact=part.is_exact)
            for part in state.parts
        ],
        damaged=state.damaged,
        building=state.is_building,
        recall=recall_to_proto(recall) if recall else None,
    )
