"""Who decodes next: searches before adding, one lane that adding never takes, and nothing lost when callers vanish."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nearcase.errors import Overloaded
from nearcase.prepare import Lanes


async def waiting(lanes: Lanes, *kinds: bool) -> list[asyncio.Task[None]]:
    tasks = [asyncio.create_task(lanes.take(bulk=bulk)) for bulk in kinds]
    await asyncio.sleep(0)
    return tasks


def done(tasks: list[asyncio.Task[None]]) -> list[bool]:
    return [task.done() for task in tasks]


async def test_adding_leaves_one_lane_to_searches() -> None:
    lanes = Lanes(3, 100)
    adding = await waiting(lanes, True, True, True)
    assert done(adding) == [True, True, False]
    assert done(await waiting(lanes, False)) == [True]
    lanes.give_back(bulk=True)
    await asyncio.sleep(0)
    assert done(adding) == [True, True, True]


async def test_searches_go_first() -> None:
    lanes = Lanes(1, 100)
    await lanes.take(bulk=True)
    adding = await waiting(lanes, True)
    searching = await waiting(lanes, False)
    lanes.give_back(bulk=True)
    await asyncio.sleep(0)
    assert (done(adding), done(searching)) == ([False], [True])


async def test_too_many_are_refused_and_those_who_left_do_not_count() -> None:
    lanes = Lanes(1, 2)
    await lanes.take(bulk=False)
    tasks = await waiting(lanes, False, False)
    with pytest.raises(Overloaded):
        await lanes.take(bulk=False)
    tasks[0].cancel()
    await asyncio.sleep(0)
    assert done(await waiting(lanes, False)) == [False]


fates = st.sampled_from(["stay", "leave at once", "leave later"])


@given(st.lists(st.tuples(st.booleans(), fates), max_size=30), st.integers(1, 4))
def test_every_lane_comes_back(callers: list[tuple[bool, str]], count: int) -> None:
    async def use(lanes: Lanes, bulk: bool) -> None:
        await lanes.take(bulk=bulk)
        try:
            await asyncio.sleep(0)
        finally:
            lanes.give_back(bulk=bulk)

    async def play() -> None:
        lanes = Lanes(count, 100)
        tasks = [asyncio.create_task(use(lanes, bulk)) for bulk, _ in callers]
        for word in ("leave at once", "leave later"):
            for task, (_, fate) in zip(tasks, callers, strict=True):
                if fate == word:
                    task.cancel()
            await asyncio.sleep(0)
        async with asyncio.timeout(5):
            await asyncio.gather(*tasks, return_exceptions=True)
        assert all(done(await waiting(lanes, *[False] * count)))

    asyncio.run(play())
