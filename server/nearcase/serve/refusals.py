"""Calls that are not let in, told a few times and counted for the rest: who is refused must not fill the disk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nearcase.clock import Clock
    from nearcase.serve.caller import Caller

EVERY_S = 10.0
"""Calls of one caller that are refused for one reason are told once in so long."""

LOOK_S = 1.0
"""What was only counted is told this much early, so that nothing waits longer than EVERY_S."""

MAX_REMEMBERED = 1000
"""Callers and reasons; only signed names get here, and strangers are one."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Of one kind, from one caller."""

    caller: Caller
    code: str
    reason: str


class Refusals:
    """Counts them; whoever has it asks each LOOK_S what is due.

    Args:
        clock: Its monotonic time.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._untold: dict[Refusal, tuple[float, int]] = {}  # when the next may be told, and how many were not
        self._left: dict[Refusal, int] = {}  # counts of those that were forgotten

    def take(self, refusal: Refusal) -> int:
        """Returns how many to tell of now; 0 for later."""
        now_s = self._clock.monotonic_s()
        next_s, count = self._untold.get(refusal, (float("-inf"), 0))
        if now_s < next_s:
            self._untold[refusal] = (next_s, count + 1)
            return 0
        if len(self._untold) >= MAX_REMEMBERED:
            self._forget()
        self._untold[refusal] = (now_s + EVERY_S, 0)
        return count + 1

    def due(self) -> list[tuple[Refusal, int]]:
        """Returns what was counted and is to be told now."""
        now_s = self._clock.monotonic_s()
        found, self._left = self._left, {}
        for refusal, (next_s, count) in list(self._untold.items()):
            if now_s + LOOK_S < next_s:
                continue
            if count:
                found[refusal] = found.get(refusal, 0) + count
                self._untold[refusal] = (next_s + EVERY_S, 0)
            elif now_s >= next_s:
                del self._untold[refusal]
        return list(found.items())

    def rest(self) -> list[tuple[Refusal, int]]:
        """Returns all that was counted and not told."""
        self._forget()
        found, self._left = self._left, {}
        return list(found.items())

    def _forget(self) -> None:
        for refusal, (_, count) in self._untold.items():
            if count:
                self._left[refusal] = self._left.get(refusal, 0) + count
        self._untold.clear()
