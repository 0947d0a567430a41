"""A burst is worked off in order; an overload keeps the line short, the newest first, and refuses the rest at once."""

from __future__ import annotations

import asyncio

import pytest
from auth_files import HandClock

from nearcase.errors import Overloaded
from nearcase.serve.line import ARRIVES_S, STALE_S, STANDING_S, Line


class Caller:
    """One request that holds its turn until it is told to end."""

    def __init__(self, line: Line) -> None:
        self._end = asyncio.Event()
        self._has_turn = False
        self.task = asyncio.create_task(self._ask(line))

    async def _ask(self, line: Line) -> None:
        async with line.turn():
            self._has_turn = True
            await self._end.wait()
        self._has_turn = False

    def has_turn(self) -> bool:
        return self._has_turn

    async def end(self) -> None:
        self._end.set()
        await self.task
        await settle()


def full(line: Line) -> bool:
    return line.is_full


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def come(line: Line, count: int) -> list[Caller]:
    callers = [Caller(line) for _ in range(count)]
    await settle()
    return callers


async def go(*callers: Caller) -> None:
    for caller in callers:
        caller.task.cancel()
    await asyncio.gather(*(caller.task for caller in callers), return_exceptions=True)


async def test_a_burst_waits_and_is_served_in_order() -> None:
    line = Line(HandClock(), places=2, max_waiting=100)
    callers = await come(line, 20)
    assert (line.taken, line.waiting) == (2, 18)
    for number, caller in enumerate(callers):
        assert caller.has_turn()
        assert [later.has_turn() for later in callers[number + 2 :]] == [False] * len(callers[number + 2 :])
        await caller.end()
    assert (line.taken, line.waiting) == (0, 0)


async def test_a_line_that_is_late_serves_the_newest_first() -> None:
    clock = HandClock()
    line = Line(clock, places=1, max_waiting=100)
    busy, first, second, third = await come(line, 4)
    clock.run_s += STANDING_S / 2
    await busy.end()
    assert (first.has_turn(), second.has_turn(), third.has_turn()) == (False, False, True)
    await third.end()
    assert second.has_turn()
    await second.end()
    await first.end()  # nobody is forgotten


async def test_an_overload_lets_few_newcomers_wait_and_refuses_who_was_overtaken() -> None:
    clock = HandClock()
    line = Line(clock, places=2, max_waiting=100)
    burst = await come(line, 12)
    assert not full(line)
    clock.run_s += STANDING_S + 0.01
    newcomers = await come(line, 2)
    assert full(line)
    (refused,) = await come(line, 1)
    with pytest.raises(Overloaded):
        await refused.task
    clock.run_s += STALE_S + 0.01
    await come(line, 1)
    assert line.demand >= 11  # what an autoscaler sees
    overtaken = await asyncio.gather(*(caller.task for caller in burst[2:]), return_exceptions=True)
    assert {type(each) for each in overtaken} == {Overloaded}
    await burst[0].end()
    await go(burst[1], *newcomers)
    assert (line.taken, line.waiting) == (0, 0)


async def overloaded(line: Line, clock: HandClock, took_s: float) -> int:
    """Callers come faster than they are served, each of whom takes so long; returns how many are served at once."""
    callers: list[Caller] = []
    at_once = 0
    for _ in range(100):
        callers += await come(line, 8)
        clock.run_s += took_s
        at_once = line.taken
        for caller in [caller for caller in callers if caller.has_turn()]:
            await caller.end()
    await go(*callers)
    return at_once


async def test_an_overload_in_which_work_slows_is_worked_on_by_fewer_at_once() -> None:
    clock = HandClock()
    line = Line(clock, places=4, max_waiting=100)
    for _ in range(10):
        (calm,) = await come(line, 1)
        clock.run_s += 0.2
        await calm.end()
    assert await overloaded(line, clock, 0.2) == 3
    assert await overloaded(line, clock, 0.5) == 1
    assert await overloaded(line, clock, 0.3) == 1
    assert await overloaded(line, clock, 0.2) == 3


async def test_callers_who_ask_again_at_once_are_no_overload() -> None:
    """Eight of them keep the line from ever being empty, and wait for some milliseconds."""
    clock = HandClock()
    line = Line(clock, places=2, max_waiting=100)
    callers = await come(line, 8)
    for _ in range(1000):
        clock.run_s += 0.002
        done = next(caller for caller in callers if caller.has_turn())
        await done.end()
        callers.remove(done)
        assert not full(line)
        callers += await come(line, 1)
    await go(*callers)


async def test_an_overload_goes_on_where_nobody_waits_for_a_moment() -> None:
    clock = HandClock()
    line = Line(clock, places=1, max_waiting=100)
    busy, stale = await come(line, 2)
    clock.run_s += 100.0
    line.refuse()
    await settle()
    assert isinstance(stale.task.exception(), Overloaded)
    await busy.end()
    assert (line.waiting, full(line)) == (0, False)
    clock.run_s += 0.1
    busy, newcomer = await come(line, 2)
    assert full(line), "one may wait, and no more"
    await busy.end()
    await newcomer.end()
    clock.run_s += 0.3
    burst = await come(line, 2)
    assert not full(line), "nobody was refused for a while"
    for one in burst:
        await one.end()


async def test_after_an_overload_a_burst_is_a_burst_again() -> None:
    clock = HandClock()
    line = Line(clock, places=1, max_waiting=100)
    busy, waiting = await come(line, 2)
    clock.run_s += 100.0
    (newcomer,) = await come(line, 1)
    assert full(line)
    await busy.end()
    await newcomer.end()
    assert waiting.has_turn()
    assert not full(line)
    await waiting.end()
    clock.run_s += 0.3
    burst = await come(line, 50)
    assert line.waiting == 49
    await go(*burst)


async def test_a_slow_encoder_is_no_overload_after_half_a_second() -> None:
    """Times count in the time that the work takes."""
    clock = HandClock()
    line = Line(clock, places=1, max_waiting=100)
    for _ in range(50):
        (caller,) = await come(line, 1)
        clock.run_s += 2.0
        await caller.end()
    callers = await come(line, 8)
    clock.run_s += 8.0
    assert not full(line)
    clock.run_s += 4.0
    callers += await come(line, 1)
    assert full(line)
    await go(*callers)


async def test_the_line_is_bounded() -> None:
    line = Line(HandClock(), places=1, max_waiting=3)
    callers = await come(line, 4)
    (refused,) = await come(line, 1)
    with pytest.raises(Overloaded):
        await refused.task
    await go(*callers)


async def test_who_goes_away_leaves_nothing_behind() -> None:
    line = Line(HandClock(), places=1, max_waiting=3)
    callers = await come(line, 4)
    await go(callers[1], callers[2])
    assert line.waiting == 1
    later = await come(line, 2)
    callers[0].task.cancel()  # in the very moment in which the next is given its turn
    await settle()
    assert callers[3].has_turn()
    callers[3].task.cancel()
    later[0].task.cancel()
    await settle()
    assert later[1].has_turn()
    await go(*callers, *later)
    assert (line.taken, line.waiting) == (0, 0)


async def test_requests_that_are_being_read_count_for_a_while() -> None:
    clock = HandClock()
    line = Line(clock, places=1, max_waiting=2)
    with line.arrival(), line.arrival():
        assert full(line)
        clock.run_s += ARRIVES_S + 0.01  # their clients are slow
        assert not full(line)
        with line.arrival():
            (caller,) = await come(line, 1)  # which was that one
            assert line._arriving_count() == 0
    await go(caller)
    assert line._arriving == {}
