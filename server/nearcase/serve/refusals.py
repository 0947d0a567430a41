"""Calls that are not let in, told a few times and counted for the rest: who is refused must not fill the disk."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nearcase.clock import Clock
    from nearcase.serve.caller import Caller

EVERY_S = 10.0
"""Calls of one caller that are refused for one reason are told once in so long."""

MAX_REMEMBERED = 1000
"""Callers and reasons; only signed names get here, and strangers are one."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Of one kind, from one caller."""

    caller: Caller
    code: str
    reason: str


class Refusals:
    """Counts them.

    Args:
        clock: Its monotonic time.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._untold: dict[Refusal, tuple[float, int]] = {}  # when the next may be told, and how many were not

    def take(self, refusal: Refusal) -> int:
        """Returns how many to tell of now; 0 for later."""
        now_s = self._clock.monotonic_s()
        next_s, count = self._untold.get(refusal, (float("-inf"), 0))
        if now_s < next_s:
            self._untold[refusal] = (next_s, count + 1)
            return 0
        if len(self._untold) >= MAX_REMEMBERED:
            self._untold.clear()
        self._untold[refusal] = (now_s + EVERY_S, 0)
        return count + 1

    def rest(self) -> Iterator[tuple[Refusal, int]]:
        """Yields what was counted and not told."""
        yield from ((refusal, count) for refusal, (_, count) in self._untold.items() if count)
