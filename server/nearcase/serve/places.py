"""Places for what is in progress, which callers share: of one half, and nearly all while nobody else is there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from nearcase.errors import Overloaded

if TYPE_CHECKING:
    from nearcase.clock import Clock
    from nearcase.serve.caller import Caller

ALONE_S = 60.0
"""A caller is alone when no other came for so long: one that asks now and then keeps its half."""

_Key = tuple[str, str]


class Places:
    """How many of a kind are in progress, and may be: of one caller half, where callers share them.

    A caller that is alone may have all but one, which is for the next that comes; a gateway for a whole hospital is one
    caller. What it holds above its half then ends by itself, or at its next message while no place is free.

    Args:
        limit: Of all callers.
        kind: What they are, for messages.
        clock: Its monotonic time.
        is_shared: Callers are known, and one may have half.
        are_refused: Tells whether requests were refused lately before their callers were known: others may be among
            them. None lends nothing beyond the half.
    """

    def __init__(
        self,
        limit: int,
        kind: str,
        clock: Clock,
        *,
        is_shared: bool,
        are_refused: Callable[[], bool] | None = None,
    ) -> None:
        self._limit, self._kind, self._clock, self._are_refused = limit, kind, clock, are_refused
        self._share = max(1, limit // 2) if is_shared else limit
        self._of: Counter[_Key] = Counter()
        self._came: list[tuple[_Key, float]] = []  # the two that came last, and when; the last is first
        self.taken = 0

    def enter(self, caller: Caller) -> None:
        """Takes a place; raises Overloaded when there is none, or none for this caller."""
        key = (caller.tenant, caller.name)
        self._came = [(key, self._clock.monotonic_s()), *(each for each in self._came if each[0] != key)][:2]
        if self.taken >= self._limit:
            message = f"{self._limit} {self._kind} are in progress; try again later"
            raise Overloaded(message, reason="TOO_MANY_REQUESTS")
        if self._of[key] >= (most := self._most(key)):
            raise self._refusal(most)
        self._of[key] += 1
        self.taken += 1

    def check(self, caller: Caller) -> None:
        """Raises Overloaded where a caller that was alone holds what others want now."""
        key = (caller.tenant, caller.name)
        if self.taken >= self._limit and self._of[key] > (most := self._most(key)):
            raise self._refusal(most)

    def leave(self, caller: Caller) -> None:
        """Gives the caller's place back; who has none is forgotten."""
        key = (caller.tenant, caller.name)
        self._of[key] -= 1
        if not self._of[key]:
            del self._of[key]
        self.taken -= 1

    def _most(self, key: _Key) -> int:
        return max(self._share, self._limit - 1) if self._is_alone(key) else self._share

    def _is_alone(self, key: _Key) -> bool:
        if self._are_refused is None or self._are_refused() or self.taken > self._of[key]:
            return False
        least_s = self._clock.monotonic_s() - ALONE_S
        return not any(other != key and came_s > least_s for other, came_s in self._came)

    def _refusal(self, most: int) -> Overloaded:
        message = f"this caller may have {most} {self._kind} in progress; try again later"
        return Overloaded(message, reason="CALLER_PLACES")
