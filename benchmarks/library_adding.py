"""Do searches wait while cases are added and parts of the index are sealed?

A server with 60,000 embeddings of 1024 numbers, of which parts still have to be sealed, is searched 20 times a second,
while pictures are added 20 times a second; then again when nothing is added and nothing is built. Linux only.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))  # the encoder that tests make on the spot

from tiny_encoders import tiny_encoder
from vectors.load import SETTLED_S, load
from vectors.made import Floats, make
from vectors.served import Target, target
from vectors.tables import markdown, put, verdict

MOST = 3.0
LEAST_S, MOST_S, LOOK_EVERY_S = 60.0, 900.0, 2.0


@dataclass(frozen=True, slots=True)
class Phase:
    """One way of going about."""

    name: str
    searches: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    worst_ms: float
    building_s: float  # time in which a part was being sealed or merged
    parts: tuple[str, ...]  # at the end


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=60_000, help="embeddings at the start (default 60,000)")
    parser.add_argument("--dimension", type=int, default=1024, help="numbers in each (default 1024)")
    parser.add_argument("--rate", type=float, default=20.0, help="pictures added, and searches, a second (default 20)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures here")
    parser.add_argument("--docs", action="store_true", help="also write the table into docs/performance.md")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="nearcase-adding-") as folder:
        phases, added = measure(Path(folder), options.rows, options.dimension, options.rate)
    text, is_met = report(phases, added, options.rows, options.dimension, options.rate)
    print(text)
    if options.json:
        options.json.write_text(json.dumps([asdict(phase) for phase in phases], indent=2) + "\n", "utf-8")
    if options.docs:
        put("library_adding", text)
    if not is_met:
        raise SystemExit(1)


def measure(folder: Path, rows: int, dimension: int, rate: float) -> tuple[list[Phase], int]:
    """Busy first: at rest, small parts are merged, and there would be nothing left to seal."""
    made = make(folder / "made", rows=rows, dimension=dimension, queries=200)
    encoder = tiny_encoder(folder / "encoder", "made", seed=0, dimension=dimension)
    asyncio.run(load(folder / "data", encoder, made, is_settled=False))
    queries = np.array(made.queries)
    with target(folder / "data", encoder) as server:
        adder = _adder(server, rate)
        try:
            busy = searched(server, queries, rate, "adding and sealing", is_busy=True)
        finally:
            adder.terminate()
            lines, _ = adder.communicate()
        _wait_settled(server)
        rest = searched(server, queries, rate, "at rest", is_busy=False)
    return [rest, busy], len(lines.splitlines())


def _adder(server: Target, rate: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "vectors.adder", server.address, str(rate)]
    return subprocess.Popen(command, cwd=Path(__file__).parent, stdout=subprocess.PIPE, text=True)


def searched(server: Target, queries: Floats, rate: float, name: str, *, is_busy: bool) -> Phase:
    """Searches at the rate, each counted from when it was due; a busy phase goes on until nothing is being sealed."""
    requests = [server.request(query, "") for query in queries]
    walls_ms, building_s, looked_s = [], 0.0, 0.0
    start_s = time.monotonic()
    for number in range(int(MOST_S * rate)):
        due_s = start_s + number / rate
        time.sleep(max(0.0, due_s - time.monotonic()))
        server.stub.Search(requests[number % len(requests)], timeout=60)
        now_s = time.monotonic()
        walls_ms.append((now_s - due_s) * 1e3)
        if now_s - looked_s >= LOOK_EVERY_S:
            is_building, looked_s = server.is_building(), now_s
            building_s += LOOK_EVERY_S * is_building
            if now_s - start_s > LEAST_S and not (is_busy and is_building):
                break
    p50, p95, p99 = np.percentile(walls_ms, (50, 95, 99))
    return Phase(name, len(walls_ms), p50, p95, p99, max(walls_ms), building_s, server.parts())


def _wait_settled(server: Target) -> None:
    quiet_s = time.monotonic()
    while time.monotonic() - quiet_s < SETTLED_S:
        time.sleep(LOOK_EVERY_S)
        if server.is_building():
            quiet_s = time.monotonic()


def report(phases: list[Phase], added: int, rows: int, dimension: int, rate: float) -> tuple[str, bool]:
    """The table, and whether the claim holds."""
    rest, busy = phases
    table = markdown(
        ["", "searches", "p50 ms", "p95 ms", "p99 ms", "slowest ms", "seconds of sealing", "parts at the end"],
        [
            [
                phase.name,
                str(phase.searches),
                f"{phase.p50_ms:.1f}",
                f"{phase.p95_ms:.1f}",
                f"{phase.p99_ms:.1f}",
                f"{phase.worst_ms:.0f}",
                f"{phase.building_s:.0f}",
                ", ".join(phase.parts),
            ]
            for phase in phases
        ],
    )
    ratio = busy.p99_ms / rest.p99_ms
    head = (
        f"{rows:,} x {dimension} at the start, {added:,} pictures added over gRPC at {rate:g} a second, searches "
        f"at the same rate, one at a time, {os.cpu_count()} cores for client, adder, server and builder together."
    )
    claim = verdict(ratio <= MOST, f"p99 while adding and sealing is within {MOST:g} times of p99 at rest: {ratio:.1f}")
    return f"{head}\n\n{table}\n\n- {claim}", ratio <= MOST


if __name__ == "__main__":
    main()
