"""The line before searches: who is worked on now, who waits, and who is refused at once.

A burst waits its turn. A line that does not empty is an overload: waiting in it would make every answer late and none
more. Then those who came last go first, few newcomers may wait, the others are refused before their bodies are read,
and those whom newcomers overtook for long are refused too. (B. Maurer, Fail at Scale, ACM Queue 13(8), 2015.)
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from nearcase.errors import Overloaded

if TYPE_CHECKING:
    from nearcase.clock import Clock

LATE_S, LATE_TIMES = 0.1, 1.0
"""A line whose oldest waits longer, and so many times longer than the work takes, serves the newest first."""

STANDING_S, STANDING_TIMES = 0.5, 5.0
"""A line that was neither empty nor in time for so long is an overload, and no burst: eight callers who each ask again
at once keep a line that is never empty, in which nobody waits."""

OVER_S = 0.25
"""An overload is over when nobody waits and nobody was refused for so long. That nobody waits for a moment says little:
most of those who came were refused."""

STALE_S, STALE_TIMES = 0.1, 1.0
"""In an overload, who waited for so long is refused: newcomers went before."""

NEWCOMERS = 0.5
"""In an overload, how many newcomers may wait for each place, at least one. Each that waits makes all that are answered
later; without any, a place that becomes free would stay so until the next arrives."""

ROOM_TIMES, DOUBLES_S = 2, 1.0
"""After a refusal a burst may be so many times the places, then twice as many every so often: a line that is empty for
a moment in an overload is not thrown open."""

ARRIVES_S = 1.0
"""A request that is let in and still being read counts as one that waits for so long; then its client is slow, and must
keep nobody out."""

LATELY_S = 60.0
"""After a refusal no caller has more than its half of the places for so long."""

SMOOTHING, CALM_SMOOTHING = 0.1, 0.02
"""Weight of the last request in the mean time that the work takes; and in that of the work outside of overloads."""

SLOWED_TIMES, QUICK_TIMES = 2.0, 1.2
"""In an overload, work that takes so many times longer than otherwise has too much beside it, so that one request less
is worked on at once; and one more again where it hardly takes longer. Refusing takes processors too, and how much is
not known beforehand. (As in TCP Vegas: L. Brakmo, L. Peterson, IEEE JSAC 13(8), 1995.)"""

JUDGED = 16
"""Requests between two such judgements."""


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    since_s: float
    turn: asyncio.Future[None]


class Line:
    """Gives turns to requests that need the encoder, whole requests at a time.

    Args:
        clock: Its monotonic time.
        places: Requests that are worked on at once: as many as keep decoders and encoder busy. In an overload one less.
        max_waiting: Requests that may wait; one more is refused.
    """

    def __init__(self, clock: Clock, *, places: int, max_waiting: int) -> None:
        self._clock, self._places, self._max_waiting = clock, places, max_waiting
        self._most_newcomers = max(1, int(NEWCOMERS * places))
        self._line: deque[_Waiting] = deque()
        self._fine_at_s: float | None = (
            None  # when the oldest was in time last; None while nobody waits, but in overload
        )
        self._refused_at_s = float("-inf")
        self._took_s = 0.0
        self._pace = _Pace(places)
        self._refusals = _LastSecond(clock)
        self._arriving: dict[object, float] = {}  # when each was let in, to be read
        self.taken = 0

    @property
    def waiting(self) -> int:
        """Requests in the line."""
        return len(self._line)

    @property
    def demand(self) -> int:
        """Those who wait, and those who were refused within a second: what another server could take over."""
        return self.waiting + self._refusals.count

    @contextmanager
    def arrival(self) -> Iterator[None]:
        """Counts a request that was let in until it asks for its turn, or ends: many may be read at once."""
        arriving = object()
        self._arriving[arriving] = self._clock.monotonic_s()
        _arrival.set(arriving)
        try:
            yield
        finally:
            self._arriving.pop(arriving, None)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Waits for a turn and holds it.

        Raises:
            Overloaded: The line is too long, or this request waited in vain.
        """
        self._arriving.pop(_arrival.get(), None)
        if self.is_full:
            raise self.refuse()
        waiting = _Waiting(self._clock.monotonic_s(), asyncio.get_running_loop().create_future())
        self._line.append(waiting)
        self._admit()
        try:
            await waiting.turn
        except asyncio.CancelledError:
            self._leave(waiting)
            raise
        start_s = self._clock.monotonic_s()
        try:
            yield
        finally:
            took_s = self._clock.monotonic_s() - start_s
            self._took_s += SMOOTHING * (took_s - self._took_s)
            if self._standing_since_s is not None:
                self._pace.take(took_s)
            elif not self.has_refused():
                self._pace.learn(took_s)
            self._end()

    @property
    def is_full(self) -> bool:
        """Whether a newcomer would be refused now."""
        arriving = self._arriving_count()
        if len(self._line) + arriving >= self._room():
            return True
        since_s = self._standing_since_s
        return since_s is not None and self._newcomers(since_s) + arriving >= self._most_newcomers

    def has_refused(self) -> bool:
        """Whether a newcomer was refused within LATELY_S; whose request it was is not known then."""
        return self._clock.monotonic_s() - self._refused_at_s < LATELY_S

    def refuse(self) -> Overloaded:
        """Returns the refusal of a newcomer; those whom newcomers overtook for long are refused with it."""
        if self._standing_since_s is not None:
            self._refuse_stale()
        self._refusals.add()
        self._refused_at_s = self._clock.monotonic_s()
        return Overloaded("too many requests wait already; try again later")

    @property
    def _standing_since_s(self) -> float | None:
        """When the line became an overload; None where it is none."""
        now_s = self._clock.monotonic_s()
        is_over = not self._line and now_s - self._refused_at_s > OVER_S
        if self._fine_at_s is None or is_over:
            return None
        since_s = self._fine_at_s + self._limit_s(STANDING_S, STANDING_TIMES)
        return since_s if now_s > since_s else None

    def _room(self) -> float:
        doublings = min(32.0, (self._clock.monotonic_s() - self._refused_at_s) / DOUBLES_S)
        return min(self._max_waiting, ROOM_TIMES * self._places * 2**doublings)

    def _newcomers(self, since_s: float) -> int:
        """Those who came later, counted as far as it matters: the burst before them takes no newcomer's place."""
        newest = islice(reversed(self._line), self._places)
        return sum(each.since_s > since_s for each in newest)

    def _arriving_count(self) -> int:
        """The latest are the last, and no more of them matter than may wait."""
        least_s = self._clock.monotonic_s() - ARRIVES_S
        return sum(since_s > least_s for since_s in islice(reversed(self._arriving.values()), self._max_waiting))

    def _refuse_stale(self) -> None:
        now_s = self._clock.monotonic_s()
        stale_s = self._limit_s(STALE_S, STALE_TIMES)
        while self._line and now_s - self._line[0].since_s > stale_s:
            waiting = self._line.popleft()
            if not waiting.turn.done():
                self._refusals.add()
                waiting.turn.set_exception(Overloaded("too many others came; try again later"))

    def _is_late(self, now_s: float) -> bool:
        return now_s - self._line[0].since_s > self._limit_s(LATE_S, LATE_TIMES)

    def _limit_s(self, least_s: float, times: float) -> float:
        return max(least_s, times * self._took_s)

    def _leave(self, waiting: _Waiting) -> None:
        """Its caller went away."""
        if not waiting.turn.done() or waiting.turn.cancelled():
            with suppress(ValueError):
                self._line.remove(waiting)
            self._admit()
        elif waiting.turn.exception() is None:  # it was given the turn in that moment
            self._end()

    def _end(self) -> None:
        self.taken -= 1
        self._admit()

    def _admit(self) -> None:
        now_s = self._clock.monotonic_s()
        is_standing = self._standing_since_s is not None
        most = self._pace.most if is_standing else self._places
        while self._line and self.taken < most:
            is_late = is_standing or self._is_late(now_s)
            if not is_late:
                self._fine_at_s = now_s
            waiting = self._line.pop() if is_late else self._line.popleft()
            if not waiting.turn.done():
                self.taken += 1
                waiting.turn.set_result(None)
        if not self._line and self._standing_since_s is None:
            self._fine_at_s = None
        elif self._fine_at_s is None:
            self._fine_at_s = now_s


class _Pace:
    """How many requests an overload is worked on at once: one less than otherwise, and fewer where that is too much."""

    def __init__(self, places: int) -> None:
        self._limit = max(1, places - 1)
        self._calm_s, self._sum_s, self._count = 0.0, 0.0, 0
        self.most = self._limit

    def learn(self, took_s: float) -> None:
        """Learns of a request that ended when there was no overload, nor had been one lately."""
        self._calm_s += (CALM_SMOOTHING if self._calm_s else 1.0) * (took_s - self._calm_s)

    def take(self, took_s: float) -> None:
        """Learns of a request that ended in an overload."""
        self._sum_s, self._count = self._sum_s + took_s, self._count + 1
        if self._count == JUDGED:
            self._judge(self._sum_s / JUDGED)
            self._sum_s, self._count = 0.0, 0

    def _judge(self, mean_s: float) -> None:
        if not self._calm_s:
            return  # an overload from the first request on
        if mean_s > SLOWED_TIMES * self._calm_s:
            self.most = max(1, self.most - 1)
        elif mean_s < QUICK_TIMES * self._calm_s:
            self.most = min(self._limit, self.most + 1)


_arrival: ContextVar[object] = ContextVar("arrival", default=None)


class _LastSecond:
    """Counts events of this second and the one before."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._second, self._now, self._before = 0, 0, 0

    @property
    def count(self) -> int:
        """Of the last whole second, or of this one where there are more already."""
        self._turn()
        return max(self._now, self._before)

    def add(self) -> None:
        """Counts one."""
        self._turn()
        self._now += 1

    def _turn(self) -> None:
        second = int(self._clock.monotonic_s())
        if second != self._second:
            self._before = self._now if second == self._second + 1 else 0
            self._second, self._now = second, 0
