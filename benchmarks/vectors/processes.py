"""What processes take: CPU time, memory and disk (Linux: /proc)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

TICK_S = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Memory:
    """Of one process."""

    anonymous_mib: float  # can not be given back
    file_mib: float  # mapped files, which the kernel can drop


def tree(root: int) -> list[int]:
    """The process and all that it started."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (parent := _parent(entry)) is not None:
            children.setdefault(parent, []).append(int(entry.name))
    found, waiting = [], [root]
    while waiting:
        found.append(waiting.pop())
        waiting += children.get(found[-1], [])
    return found


def _parent(entry: Path) -> int | None:
    try:
        return int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, IndexError, ValueError):
        return None  # it ended


def cpu_s(pid: int) -> float:
    """User and system time of all its threads, those that ended included."""
    return _own_and_reaped_s(pid)[0]


def tree_cpu_s(root: int) -> float:
    """User and system time of the process and all that it started, children that were replaced meanwhile included."""
    return sum(sum(_own_and_reaped_s(pid)) for pid in tree(root))


def _own_and_reaped_s(pid: int) -> tuple[float, float]:
    """Of the process, and of its children that ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    user, system, reaped_user, reaped_system = map(int, fields[11:15])
    return (user + system) * TICK_S, (reaped_user + reaped_system) * TICK_S


def memory(pid: int) -> Memory:
    """Resident memory."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    kib = {name: int(value.split()[0]) for name, _, value in (line.partition(":") for line in lines) if "kB" in value}
    return Memory(kib["RssAnon"] / 1024, (kib["RssFile"] + kib["RssShmem"]) / 1024)


def find(pids: list[int], word: str) -> int | None:
    """The first process with the word in its command line."""
    for pid in pids:
        path = Path(f"/proc/{pid}/cmdline")
        if path.exists() and word.encode() in path.read_bytes():
            return pid
    return None


def disk_mib(folder: Path) -> float:
    """Blocks that the files take."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file()) / 2**20
