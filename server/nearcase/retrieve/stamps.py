"""The times that writes are stamped with: always later than every one before, also where the clock was set back.

A fit knows when the last case that it has seen was written; what has a later stamp, it has not seen.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from nearcase.index.filters import Range
from nearcase.retrieve.cases import CHANGED

if TYPE_CHECKING:
    from nearcase.clock import Clock
    from nearcase.index.base import Index

STEP_S = 2e-6
"""Between two stamps: above what is lost where a time of this century is kept in whole microseconds."""


class Stamps:
    """One library's."""

    def __init__(self, index: Index, clock: Clock) -> None:
        self._index, self._clock = index, clock
        self._last_s: float | None = None  # None until the library was asked

    async def next_s(self) -> float:
        """Returns the time of a write that begins now, in seconds since 1970, UTC."""
        now_s = self._clock.now_s()
        if self._last_s is None:
            self._last_s = await self._latest_s(now_s)
        self._last_s = max(now_s, self._last_s + STEP_S)
        return self._last_s

    async def _latest_s(self, now_s: float) -> float:
        """The latest that is stored after now, by halving; where there is none, as with a right clock, -inf."""
        low, high = now_s, max(2 * now_s, 1.0)
        if not await self._is_any_after(low):
            return -math.inf
        while await self._is_any_after(high):
            low, high = high, 2 * high
        while high - low > STEP_S / 2 and low < (middle := (low + high) / 2) < high:
            low, high = (middle, high) if await self._is_any_after(middle) else (low, middle)
        return high

    async def _is_any_after(self, at_s: float) -> bool:
        return await self._index.count(Range(CHANGED, above=at_s)) > 0
