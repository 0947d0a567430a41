"""What power loss, hands and a second server do to the files of an embedded library; none of it is passed over."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import struct
import threading
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from strategies import point_id

from nearcase.errors import Unready
from nearcase.index.base import Point
from nearcase.index.edge.index import EdgeIndex
from nearcase.index.edge.journal import Journal, journalled
from nearcase.index.edge.link import BuilderProcess
from nearcase.index.edge.owner import Owner
from nearcase.index.edge.plan import Sizes
from nearcase.index.edge.shard import PlainPoint

DIMENSION = 32
NEVER, SMALL = Sizes(), Sizes(exact_below=60, seal_at=40, shard_most=10_000, exact_candidates=15, rest_s=0.1)
VECTORS = np.random.default_rng(4).normal(size=(200, DIMENSION)).astype(np.float32)
TAILS = [
    *(pytest.param(bytes(size), id=f"{size} zeros") for size in (1, 4, 8, 64, 4096)),
    *(pytest.param(random.Random(size).randbytes(size), id=f"{size} at random") for size in (8, 100, 4096)),
    pytest.param(struct.pack("<II", 2, zlib.crc32(b"[]")) + b"[]", id="a whole entry of nothing"),
]


def points(numbers: range) -> list[Point]:
    return [Point(point_id(n), VECTORS[n], {"sex": "FMO"[n % 3]}) for n in numbers]


def plain(*numbers: int) -> list[PlainPoint]:
    return [(point_id(n), VECTORS[n].tobytes(), {"source": str(n)}) for n in numbers]


@pytest.mark.parametrize("tail", TAILS)
def test_of_a_torn_journal_what_is_whole_is_kept_and_the_rest_is_cut(tmp_path: Path, tail: bytes) -> None:
    journal = Journal(tmp_path)
    journal.append(plain(1, 2))
    journal.append(plain(3))
    journal.close()
    whole = (tmp_path / "journal").read_bytes()
    (tmp_path / "journal").write_bytes(whole + tail)
    assert list(journalled(tmp_path)) == [plain(1, 2), plain(3)]
    journal = Journal(tmp_path)
    assert (tmp_path / "journal").read_bytes() == whole
    journal.append(plain(4))
    journal.close()
    assert list(journalled(tmp_path)) == [plain(1, 2), plain(3), plain(4)]


async def test_a_library_whose_journal_ends_in_zeros_opens_with_all_that_was_acknowledged(tmp_path: Path) -> None:
    index = await EdgeIndex.open(tmp_path, DIMENSION, NEVER)
    await index.upsert(points(range(10)))
    crashed = tmp_path / "crashed"
    shutil.copytree(tmp_path, crashed)
    await index.close()
    with (crashed / "journal").open("ab") as file:
        file.write(bytes(8))
    index = await EdgeIndex.open(crashed, DIMENSION, NEVER)
    assert await index.count() == 10
    await index.close()


async def test_a_second_server_takes_nothing_while_the_index_process_of_the_first_is_dead(tmp_path: Path) -> None:
    first = await EdgeIndex.open(tmp_path, DIMENSION, NEVER)
    await first.upsert(points(range(10)))
    waiting = asyncio.ensure_future(EdgeIndex.open(tmp_path, DIMENSION, NEVER))
    await asyncio.sleep(0.5)  # it waits for the lock
    assert first.process_id is not None
    os.kill(first.process_id, signal.SIGKILL)
    with pytest.raises(Unready, match=rf"another nearcase process \(pid {os.getpid()}\) has this library open"):
        await waiting
    with pytest.raises(Unready) as refused:
        await first.count()
    assert refused.value.reason == "INDEX_PROCESS_ENDED"
    await first.upsert(points(range(10, 20)))
    await first.close()
    again = await EdgeIndex.open(tmp_path, DIMENSION, NEVER)
    assert await again.count() == 20
    await again.close()


async def _library(folder: Path) -> None:
    """Makes a library of a sealed shard of 100 points, an unfinished one of 10, and nothing to do."""
    index = await EdgeIndex.open(folder, DIMENSION, SMALL)
    await index.upsert(points(range(100)))
    while [part.kind for part in (await index.state()).parts] != ["sealed", "active"]:
        await asyncio.sleep(0.05)
    await index.close()
    index = await EdgeIndex.open(folder, DIMENSION, NEVER)
    await index.upsert(points(range(100, 110)))
    await index.close()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("library")
    asyncio.run(_library(folder))
    return folder


@pytest.fixture
def library(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "library")


def folders(library: Path) -> set[str]:
    return {entry.name for entry in (library / "shards").iterdir() if entry.is_dir()}


async def test_what_a_failed_swap_leaves_is_gone_before_an_erasure_is_settled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nearcase.index.edge.keeper.PAUSES_S", (60.0,))
    monkeypatch.setattr("nearcase.index.edge.keeper.PATIENCE", 1)
    index = await EdgeIndex.open(tmp_path, DIMENSION, NEVER)
    await index.upsert(points(range(100)))
    erasing = asyncio.ensure_future(index.erase([point_id(1)]))
    while index.builder_id is None:
        await asyncio.sleep(0.001)
    obstacle = tmp_path / "shards" / "shards.json.new"
    obstacle.mkdir()  # the list can not be written
    with pytest.raises(Unready, match="not rewritten yet"):
        await erasing
    obstacle.rmdir()
    assert (await index.erase([point_id(2)])).is_rewritten
    assert folders(tmp_path) == {part.name for part in (await index.state()).parts}
    assert await index.count() == 98
    await index.close()


async def test_a_builder_that_is_being_started_while_the_library_closes_is_ended_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    starting, started = threading.Event(), list[BuilderProcess]()

    class Slow(BuilderProcess):
        def __init__(self, folder: Path, dimension: int, kind: str) -> None:
            starting.set()
            time.sleep(0.3)
            super().__init__(folder, dimension, kind)
            started.append(self)

    monkeypatch.setattr("nearcase.index.edge.keeper.BuilderProcess", Slow)
    index = await EdgeIndex.open(tmp_path, DIMENSION, SMALL)
    await index.upsert(points(range(100)))
    assert await asyncio.to_thread(starting.wait, 30)
    await index.close()
    assert index.builder_id is None
    (builder,) = started
    with pytest.raises(ProcessLookupError):
        os.kill(builder.pid, 0)


async def test_a_lost_list_of_shards_is_refused_and_nothing_is_removed(library: Path) -> None:
    shards = library / "shards"
    shutil.copytree(shards / max(folders(library)), shards / "000001")  # as in a library that was never merged
    kept = (shards / "shards.json").read_bytes()
    (shards / "shards.json").unlink()
    before = sorted(shards.rglob("*"))
    with pytest.raises(Unready, match=r"shards\.json is missing beside 000001, 00000\d, 00000\d; restore") as refused:
        await EdgeIndex.open(library, DIMENSION, NEVER)
    assert refused.value.reason == "LIBRARY_DAMAGED"
    assert sorted(shards.rglob("*")) == before
    (shards / "shards.json").write_bytes(kept)
    index = await EdgeIndex.open(library, DIMENSION, NEVER)
    assert await index.count() == 110
    await index.close()


@pytest.mark.parametrize(("file", "count"), [("matrix.dat", 10), ("chunk_0.mmap", 100)])
async def test_a_shard_whose_vectors_are_cut_short_is_named_and_the_rest_is_served(
    library: Path, file: str, count: int
) -> None:
    (found,) = (library / "shards").rglob(file)
    os.truncate(found, 1000)
    index = await EdgeIndex.open(library, DIMENSION, NEVER)
    assert (await index.state()).damaged == (found.relative_to(library / "shards").parts[0],)
    assert len(await index.search(VECTORS[0], limit=200)) == await index.count() == count
    await index.close()


async def test_the_words_of_the_engine_go_to_the_log_and_not_to_the_caller(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    owner = Owner(tmp_path, DIMENSION, 0)
    owner.ask("upsert", plain(1))
    with pytest.raises(Unready) as refused:
        owner.ask("search", [bytes(8)], 5, None, (), False)
    assert str(refused.value) == "The index engine failed in search; the log of the server says how."
    assert "dim" in caplog.text
    owner.end()
