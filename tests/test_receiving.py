"""Messages that are slow to arrive have places; those that are not, have none, however many come at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from auth_files import HandClock

import nearcase.serve.receiving as receiving_module
from nearcase.errors import Overloaded
from nearcase.serve.caller import Caller
from nearcase.serve.places import Places
from nearcase.serve.receiving import Receiving

ONE, OTHER = Caller("a"), Caller("b")


@pytest.fixture
def receiving(monkeypatch: pytest.MonkeyPatch) -> Receiving:
    monkeypatch.setattr(receiving_module, "GRACE_S", 0.1)
    return Receiving(Places(4, "slow uploads", HandClock(), is_shared=True))


async def coming(*waits_s: float) -> AsyncIterator[float]:
    for wait_s in waits_s:
        await asyncio.sleep(wait_s)
        yield wait_s


async def taken(receiving: Receiving, caller: Caller, *waits_s: float) -> list[float]:
    return [each async for each in receiving.each(coming(*waits_s), caller)]


async def test_many_that_come_at_once_need_no_place(receiving: Receiving) -> None:
    calls = [asyncio.create_task(taken(receiving, ONE, 0.0, 0.01, 0.0)) for _ in range(500)]
    await asyncio.sleep(0)
    time.sleep(0.3)  # the loop is held up: what came meanwhile is not slow
    assert await asyncio.gather(*calls) == [[0.0, 0.01, 0.0]] * 500
    assert not receiving.places._came


async def test_one_caller_has_half_of_the_slow_ones_and_gives_them_back(receiving: Receiving) -> None:
    calls = [asyncio.create_task(taken(receiving, ONE, 0.0, 0.4, 0.0)) for _ in range(3)]
    await asyncio.sleep(0.2)
    assert receiving.places.taken == 2
    assert await taken(receiving, OTHER, 0.2) == [0.2]
    *whole, refused = await asyncio.gather(*calls, return_exceptions=True)
    assert whole == [[0.0, 0.4, 0.0]] * 2
    assert isinstance(refused, Overloaded)
    assert refused.reason == "CALLER_PLACES"
    assert receiving.places.taken == 0


async def test_who_goes_away_or_is_late_leaves_no_place_taken(receiving: Receiving) -> None:
    gone = asyncio.create_task(taken(receiving, ONE, 9.0))
    with pytest.raises(TimeoutError):  # another's limit, which is not ours to explain
        async with asyncio.timeout(0.2):
            await taken(receiving, OTHER, 9.0)
    assert receiving.places.taken == 1
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    assert receiving.places.taken == 0
