"""The Clock seam: what time it is, so that tests can say."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Tells the time."""

    def now_s(self) -> float:
        """Seconds since 1970, UTC; for records, never for durations, since it can jump."""
        ...

    def monotonic_s(self) -> float:
        """Seconds from an arbitrary start that never go back; for deadlines and durations."""
        ...


class SystemClock:
    """The machine's clocks."""

    def now_s(self) -> float:
        """Seconds since 1970, UTC."""
        return time.time()

    def monotonic_s(self) -> float:
        """Seconds from an arbitrary start that never go back."""
        return time.monotonic()
