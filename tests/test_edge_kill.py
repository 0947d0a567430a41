"""Kill -9 of every process of the embedded index at random moments of adding, deleting, sealing, swapping and erasing.

What was acknowledged is there afterwards; of the one change that was not, all or nothing.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from strategies import point_id

from nearcase.errors import Unready
from nearcase.index.base import Point
from nearcase.index.edge.index import EdgeIndex
from nearcase.index.edge.plan import Sizes
from nearcase.index.filters import Equals

DIMENSION = 16
SIZES = Sizes(exact_below=60, seal_at=30, shard_most=400, exact_candidates=15, rest_s=0.3)
IDS = 150


@dataclass(frozen=True)
class Change:
    """One call; upsert and erase are of the ids from `start`, delete is of what version `version` wrote."""

    kind: str
    start: int
    count: int
    version: int

    @classmethod
    def drawn(cls, draw: random.Random, version: int) -> Change:
        kind = draw.choices(["upsert", "delete", "erase"], [8, 2, 1])[0]
        if kind == "delete":
            return cls(kind, 0, 0, max(0, version - draw.randrange(1, 6)))
        return cls(kind, draw.randrange(IDS), draw.randrange(1, 30 if kind == "upsert" else 6), version)

    @classmethod
    def read(cls, line: str) -> Change:
        kind, start, count, version = line.split()
        return cls(kind, int(start), int(count), int(version))

    def __str__(self) -> str:
        return f"{self.kind} {self.start} {self.count} {self.version}"

    @property
    def ids(self) -> list[str]:
        return [point_id(n) for n in range(self.start, self.start + self.count)]

    def applied(self, stored: dict[str, int]) -> dict[str, int]:
        """What is stored afterwards: the version of each id."""
        if self.kind == "upsert":
            return stored | dict.fromkeys(self.ids, self.version)
        if self.kind == "delete":
            return {name: version for name, version in stored.items() if version != self.version}
        return {name: version for name, version in stored.items() if name not in self.ids}

    async def make(self, index: EdgeIndex) -> None:
        if self.kind == "upsert":
            payload = {"source": str(self.version)}
            await index.upsert([Point(name, vector(name, self.version), payload) for name in self.ids])
        elif self.kind == "delete":
            await index.delete(Equals("source", str(self.version)))
        else:
            await index.erase(self.ids)


def vector(name: str, version: int) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """A unit vector that tells the id and the version."""
    drawn = np.random.default_rng([version, int(name[:8], 16)]).normal(size=DIMENSION)
    return (drawn / np.linalg.norm(drawn)).astype(np.float32)


async def contents(index: EdgeIndex) -> dict[str, int]:
    """The version of every stored id; every read agrees on them, and every vector is that of its version."""
    found: dict[str, int] = {}
    cursor: str | None = None
    while True:
        page = await index.scroll(limit=100, cursor=cursor, with_vectors=True)
        for record in page.records:
            assert record.point_id not in found
            found[record.point_id] = version = int(str(record.payload["source"]))
            assert record.vector is not None
            np.testing.assert_allclose(record.vector, vector(record.point_id, version), atol=1e-6)
        cursor = page.next_cursor
        if cursor is None:
            break
    assert await index.count() == len(found)
    assert sum((await index.facet("source", limit=10_000)).values()) == len(found)
    nearest = await index.search(vector(point_id(0), 0), limit=2 * IDS)
    assert sorted(n.point_id for n in nearest) == sorted(found)
    return found


async def in_doubt(index: EdgeIndex, stored: dict[str, int], change: Change | None) -> dict[str, int]:
    """Returns what is stored after a crash in this change: all of it, or none."""
    found = await contents(index)
    assert found in ([stored] if change is None else [stored, change.applied(stored)])
    return found


async def child_rounds(folder: Path, rounds: int, seed: int) -> dict[str, int]:
    """Kills the index process or the builder, `rounds` times, under one index; returns what is stored."""
    draw, stored, version = random.Random(seed), dict[str, int](), 0
    index = await EdgeIndex.open(folder, DIMENSION, SIZES)
    for _ in range(rounds):
        killing = asyncio.ensure_future(_kill_later(index, draw.uniform(0, 0.8), draw.random() < 0.5))
        change: Change | None = None
        while not killing.done():
            version += 1
            change = Change.drawn(draw, version)
            try:
                await change.make(index)
                stored, change = change.applied(stored), None
            except Unready:
                break
            await asyncio.sleep(draw.choice([0, 0, 0.05]))
        await killing
        while True:
            try:
                stored = await in_doubt(index, stored, change)
            except Unready:
                continue  # it was found dead just now
            break
    await index.close()
    return stored


async def _kill_later(index: EdgeIndex, delay_s: float, is_builder: bool) -> None:
    await asyncio.sleep(delay_s)
    victim = (index.builder_id if is_builder else None) or index.process_id
    if victim is not None:
        os.kill(victim, signal.SIGKILL)


async def server_rounds(folder: Path, rounds: int, seed: int, stored: dict[str, int]) -> list[float]:
    """Kills a whole server, its children left to end by themselves; returns the seconds that reopening took."""
    draw, opening_s = random.Random(seed), []
    for number in range(rounds):
        command = [sys.executable, __file__, str(folder), str(seed + number), str(10_000 * (number + 1))]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert server.stdout is not None
        assert await asyncio.to_thread(server.stdout.readline) == "open\n"
        await asyncio.sleep(draw.uniform(0.05, 1.5))
        server.kill()
        output, _ = await asyncio.to_thread(server.communicate)
        change: Change | None = None
        for line in output.splitlines(keepends=True):
            if line == "done\n" and change is not None:
                stored, change = change.applied(stored), None
            elif line.endswith("\n"):
                change = Change.read(line)
        started = time.perf_counter()
        index = await EdgeIndex.open(folder, DIMENSION, SIZES)
        opening_s.append(time.perf_counter() - started)
        stored = await in_doubt(index, stored, change)
        await index.close()
    return opening_s


async def serve(folder: Path, seed: int, version: int) -> None:
    """Changes the library for ever, and says so before and after."""
    draw = random.Random(seed)
    index = await EdgeIndex.open(folder, DIMENSION, SIZES)
    print("open", flush=True)
    while True:
        version += 1
        change = Change.drawn(draw, version)
        print(change, flush=True)
        await change.make(index)
        print("done", flush=True)


async def all_rounds(folder: Path, rounds: int, seed: int) -> list[float]:
    stored = await child_rounds(folder, rounds - rounds // 4, seed)
    return await server_rounds(folder, rounds // 4, seed, stored)


async def test_nothing_acknowledged_is_lost_and_nothing_is_half_done(tmp_path: Path) -> None:
    await all_rounds(tmp_path, 8, seed=11)


@pytest.mark.slow
async def test_the_same_two_hundred_times(tmp_path: Path) -> None:
    opening_s = await all_rounds(tmp_path, 200, seed=2000)
    print(f"200 rounds; reopening after a kill took up to {max(opening_s):.2f} s")


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
