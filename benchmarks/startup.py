"""How soon `nearcase serve` is ready, and how much memory its processes hold together when idle.

Each start has an empty library of its own; memory is read from /proc (Linux), after the last start, over the whole
process tree. PSS divides shared pages among their users, so its sum is what the machine really spends; the sum of RSS
counts shared pages once for every process.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import select
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

READY_LIMIT_S = 60.0
"""Twelve times what a start may take: a server that is not there by then never will be."""


@dataclass(frozen=True, slots=True)
class Memory:
    """What a process tree holds."""

    processes: int
    pss_mib: float
    rss_mib: float


@dataclass(frozen=True, slots=True)
class Result:
    """What this script found."""

    ready_s: list[float]
    ready_median_s: float
    idle_after_s: float
    idle: Memory


@contextmanager
def server(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A server on a free port; ends it as an operator would."""
    environment = os.environ | {"NEARCASE_DATA": str(folder), "NEARCASE_LISTEN": "127.0.0.1:0"}
    command = [str(Path(sys.executable).with_name("nearcase")), "serve", "--json"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=READY_LIMIT_S)
        finally:
            process.kill()  # does nothing to a server that has ended


def wait_until_ready(process: subprocess.Popen[bytes]) -> None:
    """Reads the server's lines until the one that says it is ready."""
    output = process.stdout
    if output is None:
        raise ValueError("expected a process with a pipe for its output")
    deadline = time.monotonic() + READY_LIMIT_S
    pending = b""
    while (left := deadline - time.monotonic()) > 0 and select.select([output], [], [], left)[0]:
        received = os.read(output.fileno(), 65536)
        if not received:
            raise SystemExit(f"the server ended with {process.wait()} before it was ready")
        *lines, pending = (pending + received).split(b"\n")
        if any(json.loads(line).get("event") == "ready" for line in lines):
            return
    raise SystemExit(f"the server was not ready after {READY_LIMIT_S:.0f} s")


def process_tree(root: int) -> list[int]:
    """The process and all below it."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:  # the name, in parentheses, may hold anything; the fields after it are state and parent
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
    tree = [root]
    for pid in tree:
        tree += [child for child, parent in parents.items() if parent == pid]
    return tree


def memory_of(tree: list[int]) -> Memory:
    """Sums /proc/PID/smaps_rollup."""
    texts = [Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in tree]
    kib = {
        key: sum(int(found) for text in texts for found in re.findall(rf"^{key}: +(\d+) kB", text, re.M))
        for key in ("Pss", "Rss")
    }
    return Memory(processes=len(tree), pss_mib=kib["Pss"] / 1024, rss_mib=kib["Rss"] / 1024)


def measure(runs: int, idle_s: float) -> Result:
    """Starts `runs` servers one after the other; reads the memory of the last after `idle_s`."""
    ready_s = []
    for run in range(runs):
        with tempfile.TemporaryDirectory() as folder:
            start = time.monotonic()
            with server(Path(folder) / "library") as process:
                wait_until_ready(process)
                ready_s.append(time.monotonic() - start)
                if run == runs - 1:
                    time.sleep(idle_s)
                    idle = memory_of(process_tree(process.pid))
    return Result(ready_s, statistics.median(ready_s), idle_s, idle)


def print_table(result: Result) -> None:
    """Prints what people want to know."""
    idle = result.idle
    rows = [
        ("ready, median", f"{result.ready_median_s:.2f} s", f"of {len(result.ready_s)} starts"),
        ("ready, slowest", f"{max(result.ready_s):.2f} s", ""),
        (
            "idle memory, PSS",
            f"{idle.pss_mib:.0f} MiB",
            f"{idle.processes} processes, {result.idle_after_s:g} s after ready",
        ),
        ("idle memory, RSS", f"{idle.rss_mib:.0f} MiB", "shared pages counted more than once"),
    ]
    for what, value, note in rows:
        print(f"{what:<18}{value:>10}   {note}".rstrip())


def main() -> None:
    """Measures, prints the table, and writes it as JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=5, help="how many times to start (default 5)")
    parser.add_argument("--idle-s", type=float, default=5.0, help="seconds between ready and reading the memory")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there too")
    options = parser.parse_args()
    if options.runs < 1:
        parser.error("--runs must be at least 1")
    result = measure(options.runs, options.idle_s)
    print_table(result)
    if options.json:
        options.json.write_text(json.dumps(asdict(result), indent=2) + "\n")


if __name__ == "__main__":
    main()
