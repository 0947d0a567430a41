"""Stored cases, out of an index page by page and into one batch by batch."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nearcase.errors import Unready
from nearcase.index.base import Point
from nearcase.retrieve.cases import stamped, to_case, to_payload
from nearcase.retrieve.joining import joined
from nearcase.transfers import ImportCounts, StoredCase
from nearcase.types import Case

if TYPE_CHECKING:
    from nearcase.index.base import Index, Record
    from nearcase.index.filters import Filter


@dataclass(frozen=True, slots=True)
class Change:
    """Cases before they are written: what they replace, what is written, and what becomes of each of them."""

    before: dict[str, Case]
    written: tuple[StoredCase, ...]
    outcomes: tuple[ImportCounts, ...]  # one for each case, in their order

    def points(self, now_s: float) -> list[Point]:
        """Returns what the index has to store now."""
        return [Point(new.case.case_id, new.vector, stamped(to_payload(new.case), now_s)) for new in self.written]


async def pages(
    index: Index, *, where: Filter | None = None, after: str | None = None, page_size: int
) -> AsyncIterator[tuple[StoredCase, ...]]:
    """Yields the cases that match in the order of their ids, those after one id only where it is given."""
    cursor = after
    while True:
        page = await index.scroll(limit=page_size, cursor=cursor, where=where, with_vectors=True)
        found = tuple(_stored(record) for record in page.records if record.point_id != after)
        if found:
            yield found
        cursor = page.next_cursor
        if cursor is None:
            return


async def change(index: Index, cases: Sequence[StoredCase], is_erased: Callable[[Case], bool]) -> Change:
    """Returns what storing the cases would do; of two of one id, the later joins the earlier.

    Args:
        index: What is there is read from it, nothing is written.
        cases: Whole, with the time of their adding.
        is_erased: Whether a case was erased here after it was added there.
    """
    wanted = list(dict.fromkeys(stored.case.case_id for stored in cases))
    here = {record.point_id: _stored(record) for record in await index.get(wanted, with_vectors=True)}
    before = {case_id: stored.case for case_id, stored in here.items()}
    written: dict[str, StoredCase] = {}
    outcomes: list[ImportCounts] = []
    for new in cases:
        if is_erased(new.case):
            outcomes.append(ImportCounts(erased=1))
            continue
        old = here.get(new.case.case_id)
        merged = StoredCase(joined(old.case if old else None, new.case), new.vector)
        if old is not None and old.case == merged.case and np.array_equal(old.vector, merged.vector):
            outcomes.append(ImportCounts(unchanged=1))
            continue
        outcomes.append(ImportCounts(replaced=1) if old else ImportCounts(added=1))
        here[new.case.case_id] = written[new.case.case_id] = merged
    return Change(before, tuple(written.values()), tuple(outcomes))


def _stored(record: Record) -> StoredCase:
    if record.vector is None:
        raise Unready("the index gave a case without its vector", reason="INDEX_FAILED")
    return StoredCase(to_case(record.point_id, record.payload), record.vector)
