"""Qdrant servers that fail, and what a state that several share is called."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from qdrant_client import grpc as wire
from qdrant_indexes import AXES, reached, some
from qdrant_server import QdrantServer
from strategies import point_id

from nearcase.errors import InvalidInput, NearcaseError, Overloaded, Unready
from nearcase.index.filters import Equals
from nearcase.index.opening import open_tier
from nearcase.index.qdrant.index import QdrantIndex
from nearcase.settings import Settings


@pytest.fixture
async def server() -> AsyncIterator[QdrantServer]:
    server = QdrantServer()
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def index(server: QdrantServer) -> AsyncIterator[QdrantIndex]:
    index = await reached(server)
    yield index
    await index.close()


async def test_calls_are_repeated_while_a_server_is_away_for_a_moment(server: QdrantServer, index: QdrantIndex) -> None:
    away = grpc.StatusCode.UNAVAILABLE
    server.faults = {"UpsertPoints": deque([away, grpc.StatusCode.INTERNAL]), "QueryBatchPoints": deque([away, away])}
    await index.upsert(some(1))
    assert [found.point_id for found in await index.search(AXES[0], limit=1)] == [point_id(0)]
    assert not any(server.faults.values())


async def test_a_lost_server_is_told_soon_and_found_again(server: QdrantServer, index: QdrantIndex) -> None:
    await index.upsert(some(2))
    await server.stop()
    started_s = time.monotonic()
    for call in (index.get([]), index.search(AXES[0], limit=1)):
        with pytest.raises(Unready) as lost:
            await call
        assert lost.value.reason == "INDEX_UNREACHABLE"
    assert time.monotonic() - started_s < 8
    await server.start()
    started_s = time.monotonic()
    while True:
        try:
            assert len(await index.search(AXES[0], limit=5)) == 2
            break
        except Unready:
            assert time.monotonic() - started_s < 10
    await index.upsert(some(3))
    assert await index.count() == 3


async def test_a_server_that_says_nothing_is_not_waited_for(server: QdrantServer, index: QdrantIndex) -> None:
    server.faults = {"CountPoints": deque([30.0] * 9)}
    started_s = time.monotonic()
    with pytest.raises(Unready) as late:
        await index.get([])
    assert late.value.reason == "INDEX_UNREACHABLE"
    assert time.monotonic() - started_s < 5


@pytest.mark.parametrize(
    ("code", "kind", "reason"),
    [
        (grpc.StatusCode.UNAUTHENTICATED, Unready, "INDEX_REFUSED"),
        (grpc.StatusCode.PERMISSION_DENIED, Unready, "INDEX_REFUSED"),
        (grpc.StatusCode.INVALID_ARGUMENT, InvalidInput, "INVALID_INPUT"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, Overloaded, "OVERLOADED"),
        (grpc.StatusCode.NOT_FOUND, Unready, "UNREADY"),
        (grpc.StatusCode.FAILED_PRECONDITION, Unready, "INDEX_FAILED"),
        (grpc.StatusCode.INTERNAL, Unready, "INDEX_FAILED"),
        (grpc.StatusCode.DEADLINE_EXCEEDED, Unready, "INDEX_UNREACHABLE"),
    ],
)
async def test_a_refusal_is_one_line_of_ours_without_the_servers_text(
    server: QdrantServer, index: QdrantIndex, code: grpc.StatusCode, kind: type[NearcaseError], reason: str
) -> None:
    server.faults = {"CountPoints": deque([code] * 9)}
    with pytest.raises(kind) as refused:
        await index.get([])
    assert refused.value.reason == reason
    assert "\n" not in str(refused.value)
    assert server.secret not in str(refused.value)


async def test_a_write_that_is_only_taken_in_is_not_acknowledged(server: QdrantServer, index: QdrantIndex) -> None:
    server.status = wire.UpdateStatus.Acknowledged
    with pytest.raises(Unready, match="repeating"):
        await index.upsert(some(1))


async def test_closing_ends_what_waits(server: QdrantServer, index: QdrantIndex) -> None:
    server.faults = {"CountPoints": deque([30.0])}
    waiting = asyncio.ensure_future(index.get([]))
    await asyncio.sleep(0.2)
    await index.close()
    with pytest.raises(Unready, match="closed"):
        await waiting


async def test_a_caller_that_gives_up_is_let_go(server: QdrantServer, index: QdrantIndex) -> None:
    server.faults = {"CountPoints": deque([30.0])}
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await index.get([])
    await index.get([])


async def test_without_a_server_the_opening_is_refused_in_one_line(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path, index="qdrant", qdrant_url="http://127.0.0.1:1")
    for _ in range(2):  # what was refused holds no lock
        with pytest.raises(Unready) as refused:
            await open_tier(settings, dimension=4, encoder_identity="one")
        assert refused.value.reason == "INDEX_UNREACHABLE"


async def test_servers_share_a_collection_and_no_data_folder(server: QdrantServer, tmp_path: Path) -> None:
    folders = [tmp_path / "one", tmp_path / "other"]
    one, other = [
        await open_tier(
            Settings(data=folder, index="qdrant", qdrant_url=server.url), dimension=4, encoder_identity="one"
        )
        for folder in folders
    ]
    with pytest.raises(Unready, match="data folder"):
        await open_tier(
            Settings(data=folders[0], index="qdrant", qdrant_url=server.url), dimension=4, encoder_identity="one"
        )
    await one.close()
    again = await open_tier(
        Settings(data=folders[0], index="qdrant", qdrant_url=server.url), dimension=4, encoder_identity="one"
    )
    await again.close()
    await other.close()


# The name of a shared state


async def test_the_name_of_the_state_changes_with_every_write_and_nothing_else(server: QdrantServer) -> None:
    one, other = await reached(server), await reached(server)
    names = [await one.generation()]
    await one.search(AXES[0], limit=1)
    assert await other.generation() == names[0]
    await one.upsert(some(1))
    names += [await other.generation(), await one.generation()]
    assert names[0] != names[1] == names[2]
    await other.delete(Equals("modality", "none is"))
    assert await one.generation() == names[1]
    await other.erase([point_id(0)])
    assert await one.generation() not in names
    for index in (one, other):
        await index.close()


async def test_while_a_write_is_in_progress_the_state_has_no_name(server: QdrantServer) -> None:
    one, other = await reached(server), await reached(server)
    server.faults = {"UpsertPoints": deque([0.5])}
    writing = asyncio.ensure_future(one.upsert(some(1)))
    await asyncio.sleep(0.2)
    assert await other.generation() != await other.generation()
    await writing
    assert await other.generation() == await other.generation()
    for index in (one, other):
        await index.close()


async def test_a_write_of_unknown_end_leaves_the_state_without_a_name_until_the_next(
    server: QdrantServer, index: QdrantIndex
) -> None:
    server.faults = {"UpsertPoints": deque([grpc.StatusCode.FAILED_PRECONDITION])}
    with pytest.raises(Unready):
        await index.upsert(some(1))
    assert await index.generation() != await index.generation()
    await index.upsert(some(1))
    assert await index.generation() == await index.generation()


async def test_a_write_that_is_refused_leaves_no_mark(server: QdrantServer, index: QdrantIndex) -> None:
    server.faults = {"UpsertPoints": deque([grpc.StatusCode.INVALID_ARGUMENT])}
    with pytest.raises(InvalidInput):
        await index.upsert(some(1))
    assert await index.generation() == await index.generation()


async def test_the_mark_of_a_dead_server_is_passed_over_in_time(
    server: QdrantServer, index: QdrantIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.faults = {"UpsertPoints": deque([30.0])}
    dying = asyncio.ensure_future((await reached(server)).upsert(some(1)))
    await asyncio.sleep(0.2)
    dying.cancel()
    await asyncio.gather(dying, return_exceptions=True)
    assert await index.generation() != await index.generation()
    now_s = time.time
    monkeypatch.setattr(time, "time", lambda: now_s() + 601)
    assert await index.generation() == await index.generation()
