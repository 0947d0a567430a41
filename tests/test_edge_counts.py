"""Counts that are kept between writes say what counting anew would say."""

from __future__ import annotations

import asyncio
import random
import threading
from pathlib import Path

import numpy as np
import pytest

from nearcase.errors import Unready
from nearcase.index.base import Point
from nearcase.index.edge.counts import MAX_KEPT, MAX_VALUES, Counts
from nearcase.index.edge.index import EdgeIndex
from nearcase.index.filters import Equals, In
from nearcase.retrieve.cases import stamped


def point(number: int, modality: str) -> Point:
    vector = np.zeros(4, np.float32)
    vector[number % 4] = 1.0
    return Point(f"00000000-0000-0000-0000-{number:012d}", vector, {"modality": modality})


async def test_a_count_follows_every_write(tmp_path: Path) -> None:
    index = await EdgeIndex.open(tmp_path, 4)
    ct = Equals("modality", "CT")
    try:
        for number in range(6):
            await index.upsert([point(number, "CT" if number % 2 else "MR")])
            for _ in range(2):  # asked for, then kept
                assert await index.count(ct) == (number + 1) // 2
                assert (await index.facet("modality")).get("CT", 0) == (number + 1) // 2
        await index.upsert([point(1, "MR")])
        assert await index.count(ct) == 2
        await index.delete(In("modality", ("MR",)))
        assert (await index.count(ct), await index.count()) == (2, 2)
        await index.erase([point(3, "").point_id])
        assert (await index.count(ct), await index.facet("modality")) == (1, {"CT": 1})
    finally:
        await index.close()


async def test_a_kept_count_outlives_the_process_that_counted(tmp_path: Path) -> None:
    index = await EdgeIndex.open(tmp_path, 4)
    try:
        await index.upsert([point(1, "CT")])
        assert await index.count() == 1
        index._owner.kill()
        assert await index.count() == 1  # kept: nothing was written since
    finally:
        await index.close()


async def test_a_kept_count_waits_for_no_turn_but_for_a_write(tmp_path: Path) -> None:
    index = await EdgeIndex.open(tmp_path, 4)
    ct, may_go_on = Equals("modality", "CT"), threading.Event()
    try:
        await index.upsert([point(1, "CT")])
        assert await index.count(ct) == 1
        busy = asyncio.ensure_future(index._run(lambda: may_go_on.wait(10)))
        await asyncio.sleep(0)
        assert await asyncio.wait_for(index.count(ct), 5) == 1
        adding = asyncio.ensure_future(index.upsert([point(2, "CT")]))
        await asyncio.sleep(0)
        late = asyncio.ensure_future(index.count(ct))  # asked after the write was
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(late), 0.2)
        may_go_on.set()
        await asyncio.gather(busy, adding)
        assert await late in (1, 2)
        assert await index.count(ct) == 2
    finally:
        may_go_on.set()
        await index.close()
    with pytest.raises(Unready):
        await index.count(ct)


def test_what_is_kept_is_bounded() -> None:
    counts = Counts()
    for number in range(2 * MAX_KEPT):
        counts.keep("count", (number,), number)
    assert counts.known("count", (0,)) is None
    assert counts.known("count", (2 * MAX_KEPT - 1,)) == 2 * MAX_KEPT - 1
    counts.keep("facet", ("patient_key",), [(str(n), 1) for n in range(MAX_VALUES + 1)])
    assert counts.known("facet", ("patient_key",)) is None
    counts.keep("search", ("x",), [])
    assert counts.known("search", ("x",)) is None
    counts.forget()
    assert counts.known("count", (2 * MAX_KEPT - 1,)) is None


async def test_when_a_case_was_written_comes_back_to_the_last_bit(tmp_path: Path) -> None:
    """A fit counts what was written after its own last: one bit more would be a change that nobody made."""
    rng = random.Random(0)
    written = [stamped({}, 1.79e9 + rng.random() * 1e7) for _ in range(300)]
    vector = np.array([1.0, 0.0, 0.0, 0.0], np.float32)
    points = [Point(point(at, "").point_id, vector, payload) for at, payload in enumerate(written)]
    index = await EdgeIndex.open(tmp_path, 4)
    try:
        await index.upsert(points)
        assert [record.payload for record in await index.get([each.point_id for each in points])] == written
    finally:
        await index.close()
