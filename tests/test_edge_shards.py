"""Sealing, merging and erasing by the real builder and engine, with shards of some dozens of points."""

from __future__ import annotations

import asyncio
import base64
import os
import random
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from strategies import point_id

from nearcase.errors import Unready
from nearcase.index.base import Index, Point
from nearcase.index.edge.index import EdgeIndex
from nearcase.index.edge.plan import Sizes
from nearcase.index.exact import ExactIndex
from nearcase.index.filters import And, Equals, Not, Or, Range

if TYPE_CHECKING:
    from nearcase.types import Embedding

DIMENSION = 32
SMALL = Sizes(exact_below=60, seal_at=40, shard_most=10_000, exact_candidates=15, rest_s=0.2)
NEVER = Sizes()
SLOWER = ("deleted before", "replaced before")


def vectors(count: int, seed: int) -> Embedding:
    return np.random.default_rng(seed).normal(size=(count, DIMENSION)).astype(np.float32)


def points(numbers: range, seed: int = 0) -> list[Point]:
    drawn = vectors(len(numbers), seed + numbers.start)
    return [
        Point(
            point_id(n),
            vector,
            {"modality": "CT" if n % 2 else "MR", "sex": "FMO"[n % 3], "age_years": float(n % 90), "source": str(seed)},
        )
        for n, vector in zip(numbers, drawn, strict=True)
    ]


async def settled(index: EdgeIndex) -> list[str]:
    """Waits until nothing is sealed any more and returns the kinds of the parts."""
    quiet = 0
    for _ in range(600):
        state = await index.state()
        quiet = quiet + 1 if not state.is_building and all(p.kind != "frozen" for p in state.parts) else 0
        if quiet > 3 * SMALL.rest_s / 0.1:
            return [part.kind for part in state.parts]
        await asyncio.sleep(0.1)
    raise AssertionError(state)


async def same(edge: Index, exact: Index) -> None:
    """Every read that has one right answer."""
    assert await edge.count() == await exact.count()
    assert (await edge.scroll(limit=5000)).records == (await exact.scroll(limit=5000)).records
    for where in (None, Equals("modality", "CT"), And((Equals("sex", "F"), Range("age_years", at_least=30)))):
        assert await edge.count(where) == await exact.count(where)
        assert await edge.facet("sex", where=where) == await exact.facet("sex", where=where)
        queries = list(vectors(3, 99))
        found = await edge.search_batch(queries, limit=9, where=where, exact=True)
        expected = await exact.search_batch(queries, limit=9, where=where)
        assert [[n.point_id for n in ranked] for ranked in found] == [[n.point_id for n in r] for r in expected]
        for query, ranked in zip(queries, expected, strict=True):  # so few points that the graph misses none
            near = await edge.search(query, limit=9, where=where)
            assert [n.point_id for n in near] == [n.point_id for n in ranked]
            assert [n.similarity for n in near] == pytest.approx([n.similarity for n in ranked], abs=1e-5)


async def test_a_library_that_grows_is_sealed_and_merged_and_answers_the_same(tmp_path: Path) -> None:
    edge, exact = await EdgeIndex.open(tmp_path, DIMENSION, SMALL), ExactIndex(DIMENSION)
    for start in range(0, 400, 50):
        for index in (edge, exact):
            await index.upsert(points(range(start, start + 50)))
        await same(edge, exact)
    for index in (edge, exact):
        await index.upsert(points(range(90, 110), seed=7))  # some that are sealed, some that may not be
    await same(edge, exact)
    assert (await settled(edge))[:-1] == ["sealed"]
    assert not (await edge.state()).is_exact
    await same(edge, exact)
    stored = {r.point_id: r.vector for r in (await exact.scroll(limit=5000, with_vectors=True)).records}
    for record in (await edge.scroll(limit=5000, with_vectors=True)).records:
        np.testing.assert_array_equal(record.vector, stored[record.point_id])  # bit for bit through every rewriting
    await edge.close()


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (2, 3))])
async def test_any_order_of_changes_equals_the_oracle(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    edge, exact = await EdgeIndex.open(tmp_path, DIMENSION, SMALL), ExactIndex(DIMENSION)
    for step in range(30):
        kind = draw.choices(["upsert", "delete", "erase", "wait", "reopen"], [10, 3, 2, 2, 1])[0]
        start = draw.randrange(200)
        where = Or((Equals("source", str(draw.randrange(step + 1))), Equals("source", "none")))
        for index in (edge, exact):
            if kind == "upsert":
                await index.upsert(points(range(start, start + 40), seed=step))
            elif kind == "delete":
                await index.delete(where)
            elif kind == "erase":
                erased = await index.erase([point_id(n) for n in range(start, start + 5)])
                assert erased.is_rewritten
        if kind == "wait":
            await asyncio.sleep(draw.random() * 0.5)
        if kind == "reopen":
            await edge.close()
            edge = await EdgeIndex.open(tmp_path, DIMENSION, SMALL)
        assert await edge.count() == await exact.count()
        if step % 5 == 4:
            await same(edge, exact)
    await settled(edge)
    await same(edge, exact)
    await edge.close()


SECRET = "ZZSECRETZZ"
THUMBNAIL = base64.b64encode(random.Random(5).randbytes(3000)).decode()


def traces(erased: list[Point]) -> list[bytes]:
    """Every shape in which a point could be left in a file."""
    found = [SECRET.encode(), THUMBNAIL[:40].encode(), THUMBNAIL[-40:].encode()]
    for point in erased:
        vector = point.vector / np.linalg.norm(point.vector.astype(np.float64))
        identity = uuid.UUID(point.point_id)
        found += [point.point_id.encode(), identity.hex.encode(), identity.bytes, identity.bytes[::-1]]
        found += [vector.astype(np.float32)[:6].tobytes(), vector.astype(np.float32)[-6:].tobytes()]
    return found


def written(file: Path) -> bytes:
    """What was ever written to a file: the engine's are mostly holes."""
    found = b""
    with file.open("rb") as source:
        end = 0
        while True:
            try:
                start = os.lseek(source.fileno(), end, os.SEEK_DATA)
            except OSError:
                return found.rstrip(b"\0")
            end = os.lseek(source.fileno(), start, os.SEEK_HOLE)
            source.seek(start)
            found += source.read(end - start)


def files_with(folder: Path, wanted: list[bytes]) -> list[str]:
    for _ in range(100):
        try:
            contents = {file: written(file) for file in folder.rglob("*") if file.is_file()}
        except FileNotFoundError:  # a folder that is being removed in this moment
            time.sleep(0.01)
        else:
            break
    return [f"{file.name}: {n}" for file, data in contents.items() for n, trace in enumerate(wanted) if trace in data]


@pytest.mark.parametrize("sizes", [NEVER, SMALL], ids=["small library", "sealed library"])
@pytest.mark.parametrize("how", ["erased", "after kill", *(pytest.param(h, marks=pytest.mark.slow) for h in SLOWER)])
async def test_of_what_was_erased_no_file_holds_a_byte(tmp_path: Path, sizes: Sizes, how: str) -> None:
    index = await EdgeIndex.open(tmp_path, DIMENSION, sizes)
    erased = [
        Point(p.point_id, p.vector, {**p.payload, "patient_key": SECRET, "thumbnail": THUMBNAIL, "labels": [SECRET]})
        for p in points(range(1000, 1005))
    ]
    await index.upsert(points(range(80)))
    await index.upsert(erased)
    await index.upsert(points(range(80, 100)))
    if sizes is SMALL:
        await settled(index)
    assert len(files_with(tmp_path, traces(erased))) > 10
    if how == "deleted before":
        assert await index.delete(Equals("patient_key", SECRET)) == 5
    if how == "replaced before":
        await index.upsert([Point(p.point_id, -p.vector, {}) for p in erased])
    if how == "after kill":
        assert index.process_id is not None
        os.kill(index.process_id, signal.SIGKILL)
        with pytest.raises(Unready):
            await index.count()
    result = await index.erase([point.point_id for point in erased])
    assert result.point_count == (0 if how == "deleted before" else 5)
    assert files_with(tmp_path, traces(erased)) == []
    assert await index.count() == 100
    assert {r.point_id for r in (await index.scroll(limit=200)).records} == {point_id(n) for n in range(100)}
    await index.close()
    assert files_with(tmp_path, traces(erased)) == []


@pytest.mark.slow
async def test_searches_go_on_during_an_erasure_and_show_nothing_of_it(tmp_path: Path) -> None:
    index = await EdgeIndex.open(tmp_path, DIMENSION, SMALL)
    await index.upsert(points(range(300)))
    await settled(index)
    gone = {point_id(n) for n in range(50)}
    erasing = asyncio.ensure_future(index.erase(sorted(gone)))
    await asyncio.sleep(0.02)
    searches = 0
    while not erasing.done():
        assert not gone & {n.point_id for n in await index.search(vectors(1, searches)[0], limit=300)}
        searches += 1
    assert searches > 20
    assert (await erasing).point_count == 50
    await index.close()


async def test_erasures_at_once_and_while_sealing_all_complete(tmp_path: Path) -> None:
    index = await EdgeIndex.open(tmp_path, DIMENSION, SMALL)
    await index.upsert(points(range(200)))
    while not (await index.state()).is_building:
        await asyncio.sleep(0.01)
    results = await asyncio.gather(*(index.erase([point_id(n), point_id(n + 100)]) for n in range(5)))
    assert [result.point_count for result in results] == [2] * 5
    gone = [Point(point_id(n), p.vector, {}) for n, p in enumerate(points(range(200))) if n % 100 < 5]
    assert files_with(tmp_path, traces(gone)) == []
    assert await index.count() == 190
    await index.close()


@pytest.mark.slow
async def test_an_erasure_that_a_crash_interrupts_is_completed_at_the_next_opening(tmp_path: Path) -> None:
    index = await EdgeIndex.open(tmp_path, DIMENSION, NEVER)
    await index.upsert(points(range(100)))
    erasing = asyncio.ensure_future(index.erase([point_id(1)]))
    while index.builder_id is None:
        await asyncio.sleep(0.001)
    await index.close()
    with pytest.raises(Unready):
        await erasing
    index = await EdgeIndex.open(tmp_path, DIMENSION, NEVER)
    assert await index.get([point_id(1)]) == []
    for _ in range(600):
        if not files_with(tmp_path, traces(points(range(1, 2)))[3:]) and index.builder_id is None:
            break
        await asyncio.sleep(0.1)
    assert files_with(tmp_path, [uuid.UUID(point_id(1)).bytes, point_id(1).encode()]) == []
    await index.close()


async def test_a_builder_that_dies_is_replaced_and_nobody_notices(tmp_path: Path) -> None:
    edge, exact = await EdgeIndex.open(tmp_path, DIMENSION, SMALL), ExactIndex(DIMENSION)
    for index in (edge, exact):
        await index.upsert(points(range(150)))
    while (builder := edge.builder_id) is None:
        await asyncio.sleep(0.01)
    os.kill(builder, signal.SIGKILL)
    await same(edge, exact)
    for _ in range(600):
        if (await edge.state()).parts[0].kind == "sealed":
            break
        await asyncio.sleep(0.1)
    assert (await settled(edge))[0] == "sealed"
    await same(edge, exact)
    await edge.close()


async def _two_shards(folder: Path) -> tuple[int, str]:
    """Makes a library of a sealed shard of 100 points and an active one of 10; returns the name of the sealed one."""
    index = await EdgeIndex.open(folder, DIMENSION, SMALL)
    await index.upsert(points(range(100)))
    await settled(index)
    await index.close()
    index = await EdgeIndex.open(folder, DIMENSION, NEVER)
    await index.upsert(points(range(100, 110)))
    state = await index.state()
    await index.close()
    return len(state.parts), state.parts[0].name


@pytest.mark.parametrize("damage", ["lost", "empty file", "garbage"])
async def test_what_is_damaged_is_named_and_the_rest_is_served(tmp_path: Path, damage: str) -> None:
    count, name = await _two_shards(tmp_path)
    assert count == 2
    whole = tmp_path / "whole"
    shutil.copytree(tmp_path / "shards" / name, whole)
    if damage == "lost":
        shutil.rmtree(tmp_path / "shards" / name / "segments")
        (tmp_path / "shards" / name / "segments").write_text("")
    else:
        for file in (tmp_path / "shards" / name / "segments").rglob("segment.json"):
            file.write_bytes(b"" if damage == "empty file" else b"\xff" * 100)
    index = await EdgeIndex.open(tmp_path, DIMENSION, NEVER)
    state = await index.state()
    assert state.damaged == (name,)
    assert await index.count() == 10
    assert len(await index.search(vectors(1, 1)[0], limit=50)) == 10
    await index.upsert(points(range(5, 6), seed=9))  # of which the damaged part has an older version
    for change in (index.erase([point_id(105)]), index.delete(Equals("sex", "F"))):
        with pytest.raises(Unready) as refused:
            await change
        assert refused.value.reason == "LIBRARY_DAMAGED"
    assert await index.count() == 11
    await index.close()
    shutil.rmtree(tmp_path / "shards" / name)
    whole.rename(tmp_path / "shards" / name)  # somebody restores it
    index = await EdgeIndex.open(tmp_path, DIMENSION, NEVER)
    assert (await index.state()).damaged == ()
    assert await index.count() == 110
    assert (await index.get([point_id(5)]))[0].payload["source"] == "9"
    await index.erase([point_id(105)])
    await index.close()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own, of 1200 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1200m", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small disk needs root and the right to mount")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


async def test_a_full_disk_refuses_writes_keeps_the_process_and_goes_on_when_there_is_room(
    disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = await EdgeIndex.open(disk, DIMENSION, NEVER)
    await index.upsert(points(range(50)))
    child = index.process_id
    ballast = disk / "ballast"
    with ballast.open("wb") as file:
        while shutil.disk_usage(disk).free > 200 * 2**20:
            file.write(b"x" * 2**20)
    with pytest.raises(Unready) as refused:
        await index.upsert(points(range(50, 60)))
    assert refused.value.reason == "DISK_FULL"
    assert await index.delete(Equals("modality", "CT")) == 25
    monkeypatch.setattr("nearcase.index.edge.keeper.PAUSES_S", (0.1,))
    with pytest.raises(Unready, match="MiB of free disk"):
        await index.erase([point_id(2)])
    assert "free disk" in (await index.state()).problem
    assert await index.count() == 24
    assert index.process_id == child
    ballast.unlink()
    assert (await index.erase([point_id(2)])).is_rewritten
    assert files_with(disk, [point_id(2).encode(), uuid.UUID(point_id(2)).bytes]) == []
    await index.upsert(points(range(50, 60)))
    assert (await index.state()).problem == ""
    await index.close()


async def test_a_disk_that_becomes_read_only_refuses_writes_and_answers(disk: Path) -> None:
    index = await EdgeIndex.open(disk, DIMENSION, NEVER)
    await index.upsert(points(range(50)))
    child = index.process_id
    with pytest.MonkeyPatch.context() as patch:  # the kernel does not let a disk in use become so on command
        patch.setattr("nearcase.index.edge.owner.is_read_only", lambda folder: True)
        for change in (
            index.upsert(points(range(60))),
            index.delete(Equals("sex", "F")),
            index.erase([point_id(1)]),
        ):
            with pytest.raises(Unready) as refused:
                await change
            assert refused.value.reason == "READ_ONLY"
        assert await index.count() == 50
    assert index.process_id == child
    await index.close()
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    with pytest.raises(Unready, match="can not be opened"):
        await EdgeIndex.open(disk, DIMENSION, NEVER)


async def test_a_search_with_many_ties_is_in_the_order_of_ids_across_shards(tmp_path: Path) -> None:
    index = await EdgeIndex.open(tmp_path, DIMENSION, SMALL)
    axis = np.eye(DIMENSION, dtype=np.float32)[0]
    await index.upsert([Point(point_id(n), axis, {}) for n in range(120)])
    await settled(index)
    await index.upsert([Point(point_id(n), axis, {}) for n in range(120, 150)])
    expected = sorted(point_id(n) for n in range(150))
    for limit in (1, 9, 100, 149, 1000):
        assert [n.point_id for n in await index.search(axis, limit=limit)] == expected[:limit]
    assert await index.count(Not(Equals("sex", "F"))) == 150
    await index.close()


async def test_closing_during_a_build_takes_no_longer_than_it_should(tmp_path: Path) -> None:
    index = await EdgeIndex.open(tmp_path, DIMENSION, SMALL)
    await index.upsert(points(range(150)))
    while index.builder_id is None:
        await asyncio.sleep(0.01)
    started = time.monotonic()
    await index.close()
    assert time.monotonic() - started < 3
    assert index.builder_id is None
