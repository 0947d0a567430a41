"""A million cases on one machine: adding at a steady rate, searching, and starting again.

1,000,000 clustered embeddings of 256 numbers go in through the index, as the server stores them, while parts are sealed
in the background; then a real server is asked over gRPC, stopped, started, killed and started again. Linux only.
`--rows` takes fewer.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))  # the encoder that tests make on the spot

from tiny_encoders import tiny_encoder
from vectors.load import load
from vectors.made import FILTERS, Made, make
from vectors.processes import disk_mib, memory
from vectors.served import Target, target
from vectors.tables import markdown, put, verdict

DIMENSION = 256
BLOCKS = 10
STEADY = 1.5
"""The fastest block may be so many times the slowest: a rate that falls with the size would end in a standstill."""

MOST_START_S = 30.0


@dataclass(frozen=True, slots=True)
class Block:
    """A tenth of the cases."""

    cases: int  # that were there at its end
    wall_s: float
    per_s: float


@dataclass(frozen=True, slots=True)
class Searches:
    """One filter."""

    filter: str
    recall: float
    p50_ms: float
    p99_ms: float
    cpu_ms: float


@dataclass(frozen=True, slots=True)
class Result:
    """What was measured."""

    rows: int
    blocks: tuple[Block, ...]
    settle_s: float
    parts: tuple[str, ...]
    searches: tuple[Searches, ...]
    start_s: float  # after it was stopped
    start_after_kill_s: float  # after `kill -9` of the server
    anonymous_mib: float
    file_mib: float
    disk_mib: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="how many (default 1,000,000)")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="work here and leave it")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures here")
    parser.add_argument("--docs", action="store_true", help="also write the tables into docs/performance.md")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="nearcase-million-") as temporary:
        result = measure(options.keep or Path(temporary), options.rows)
    text = report(result)
    print(text)
    if options.json:
        options.json.write_text(json.dumps(asdict(result), indent=2) + "\n", "utf-8")
    if options.docs:
        put("library_million", text)


def measure(folder: Path, rows: int) -> Result:
    """Adds, starts twice, searches."""
    made = make(folder / "made", rows=rows, dimension=DIMENSION, queries=200)
    encoder = tiny_encoder(folder / "encoder", "made", seed=0, dimension=DIMENSION)
    data = folder / "data"
    blocks, settle_s = added(data, encoder, made)
    start_s = time.monotonic()
    with target(data, encoder) as server:
        start_s = time.monotonic() - start_s
        server.kill()
    kill_s = time.monotonic()
    with target(data, encoder) as server:
        kill_s = time.monotonic() - kill_s
        parts = server.parts()
        searches = tuple(_searched(server, made, name) for name in FILTERS)
        used = memory(server.index_pid)
    size = disk_mib(data / "library")
    return Result(rows, blocks, settle_s, parts, searches, start_s, kill_s, used.anonymous_mib, used.file_mib, size)


def added(data: Path, encoder: Path, made: Made) -> tuple[tuple[Block, ...], float]:
    """Stores everything; returns each block, and how long sealing went on afterwards."""
    every, blocks, last_s = len(made.vectors) // BLOCKS, [], time.monotonic()

    def after(count: int) -> None:
        nonlocal last_s
        if count % every == 0:
            took_s, last_s = time.monotonic() - last_s, time.monotonic()
            blocks.append(Block(count, took_s, every / took_s))
            print(f"{count:>9,} cases, {every / took_s:,.0f} a second", file=sys.stderr, flush=True)

    asyncio.run(load(data, encoder, made, thumbnail_bytes=0, after_block=after))
    return tuple(blocks), time.monotonic() - last_s


def _searched(server: Target, made: Made, name: str) -> Searches:
    """One after the other, so that the wall time is that of a search."""
    requests = [server.request(query, FILTERS[name]) for query in np.array(made.queries)]
    recall = server.recall(made, name)
    before_s, walls_ms = sum(server.cpu_s()), []
    for request in requests * 3:
        start_s = time.perf_counter()
        server.stub.Search(request, timeout=60)
        walls_ms.append((time.perf_counter() - start_s) * 1e3)
    cpu_ms = (sum(server.cpu_s()) - before_s) / len(walls_ms) * 1e3
    p50, p99 = np.percentile(walls_ms, (50, 99))
    return Searches(name, recall, float(p50), float(p99), cpu_ms)


def report(result: Result) -> str:
    """The tables and what each claim comes to."""
    rates = [block.per_s for block in result.blocks]
    spread = max(rates) / min(rates)
    claims = [
        verdict(spread <= STEADY, f"a steady rate, fastest block at most {STEADY} times the slowest: {spread:.2f}"),
        verdict(
            max(result.start_s, result.start_after_kill_s) < MOST_START_S,
            f"starts in under {MOST_START_S:.0f} s: {result.start_s:.1f} s, after `kill -9` "
            f"{result.start_after_kill_s:.1f} s",
        ),
    ]
    head = (
        f"{result.rows:,} x {DIMENSION}. Parts: {', '.join(result.parts)}. The index process holds "
        f"{result.anonymous_mib:.0f} MiB anonymous and maps {result.file_mib:.0f} MiB; {result.disk_mib:.0f} MiB on "
        f"disk. Sealing went on for {result.settle_s:.0f} s after the last case."
    )
    adding = markdown(
        ["cases at the end of a block", "seconds", "cases a second"],
        [[f"{block.cases:,}", f"{block.wall_s:.0f}", f"{block.per_s:,.0f}"] for block in result.blocks],
    )
    searching = markdown(
        ["filter", "recall@10", "p50 ms", "p99 ms", "CPU ms"],
        [
            [each.filter, f"{each.recall:.3f}", f"{each.p50_ms:.1f}", f"{each.p99_ms:.1f}", f"{each.cpu_ms:.2f}"]
            for each in result.searches
        ],
    )
    return "\n\n".join([head, adding, searching, "\n".join(f"- {claim}" for claim in claims)])


if __name__ == "__main__":
    main()
