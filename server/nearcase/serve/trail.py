"""Which stages a request passed, and when: noted while it runs, told as a trace or in the log once it ended."""

from __future__ import annotations

from collections.abc import Iterable
from contextvars import ContextVar
from dataclasses import dataclass, field

MOST_STAGES = 256
"""A stream of images to add may go on for days; what is beyond is counted, not kept."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One step of a request, on the monotonic clock."""

    name: str
    start_s: float
    end_s: float


@dataclass(slots=True)
class Trail:
    """The stages of one request."""

    stages: list[Stage] = field(default_factory=list)
    left_out_count: int = 0

    def add(self, taken_ms: Iterable[tuple[str, float]], now_s: float) -> None:
        """Notes stages that followed one another and ended now."""
        end_s = now_s
        for name, taken in reversed(list(taken_ms)):
            start_s = end_s - taken / 1e3
            if len(self.stages) < MOST_STAGES:
                self.stages.append(Stage(name, start_s, end_s))
            else:
                self.left_out_count += 1
            end_s = start_s

    def sums_ms(self) -> dict[str, float]:
        """Returns how long each stage took in all; of images side by side, the sum."""
        sums: dict[str, float] = {}
        for stage in self.stages:
            sums[stage.name] = sums.get(stage.name, 0.0) + (stage.end_s - stage.start_s) * 1e3
        return sums


_current: ContextVar[Trail | None] = ContextVar("trail", default=None)


def begin() -> Trail:
    """Returns the trail of the request that begins in this task; the tasks that it makes write to it too."""
    trail = Trail()
    _current.set(trail)
    return trail


def note(taken_ms: Iterable[tuple[str, float]], now_s: float) -> None:
    """Notes stages of the request of this task, where there is one."""
    trail = _current.get()
    if trail is not None:
        trail.add(taken_ms, now_s)
