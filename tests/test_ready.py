"""What is ready of a stream comes together, in order, and nothing waits for more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from nearcase.serve.ready import ready_in


async def test_what_is_ready_comes_together_and_in_order() -> None:
    given: asyncio.Queue[int | None] = asyncio.Queue()

    async def stream() -> AsyncIterator[int]:
        while (number := await given.get()) is not None:
            yield number

    for number in range(10):
        given.put_nowait(number)
    found: list[list[int]] = []
    async for ready in ready_in(stream(), 4):
        found.append(ready)
        if len(found) == 3:
            for more in (10, None):
                given.put_nowait(more)
    assert found == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9], [10]]


async def test_an_error_comes_after_what_was_ready_before_it() -> None:
    async def stream() -> AsyncIterator[int]:
        yield 1
        yield 2
        raise ValueError("late")

    found: list[int] = []

    async def take() -> None:
        async for ready in ready_in(stream(), 10):
            found.extend(ready)

    with pytest.raises(ValueError, match="late"):
        await take()
    assert found == [1, 2]


async def test_who_goes_away_ends_the_stream() -> None:
    ended = asyncio.Event()

    async def stream() -> AsyncIterator[int]:
        try:
            yield 1
            await asyncio.sleep(60)
        finally:
            ended.set()

    async with aclosing(ready_in(stream(), 10)) as parts:
        async for ready in parts:
            assert ready == [1]
            break
    assert ended.is_set()
