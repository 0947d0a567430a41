"""How many processors are ours, and who goes first on them."""

from __future__ import annotations

import math
import os
from contextlib import suppress
from pathlib import Path

WORKING, BUILDING = 10, 19
"""Nice values (sched(7)): of encoding and decoding, and of work for which nobody waits. The event loop has 0: it reads,
refuses and answers in moments, and everybody waits for it."""

_CGROUP = Path("/sys/fs/cgroup")


def processor_count(cgroup: Path = _CGROUP) -> int:
    """Returns how many processors this process may keep busy, at least 1.

    Not those of the machine: a process may be bound to some (sched_setaffinity(2)), and a container may have a share of
    the time of all (cgroups(7), cpu.max); part of a processor counts as one.

    Args:
        cgroup: Where this process's control group is mounted.
    """
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    share = _share(cgroup)
    return bound if share is None else max(1, min(bound, math.ceil(share)))


def decoder_count() -> int:
    """Returns how many decoding processes to start where nobody says: at most 4, since each holds memory."""
    return min(processor_count(), 4)


def give_way(nice: int) -> None:
    """Makes the calling thread so much nicer, and those that it starts; the whole process where threads have no nice
    values of their own."""
    with suppress(OSError):  # a system that forbids it runs everything as before
        os.setpriority(os.PRIO_PROCESS, 0, min(19, os.getpriority(os.PRIO_PROCESS, 0) + nice))


def _share(cgroup: Path) -> float | None:
    """Processors' worth of time, of version 2 or 1; None where it is not bounded."""
    with suppress(OSError, ValueError):
        quota, period = (cgroup / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    with suppress(OSError, ValueError):
        quota_us = int((cgroup / "cpu" / "cpu.cfs_quota_us").read_text())
        return quota_us / int((cgroup / "cpu" / "cpu.cfs_period_us").read_text()) if quota_us > 0 else None
    return None
