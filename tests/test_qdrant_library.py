"""A library on a Qdrant server: two servers share it, one bad case harms no other, and a lost server comes back."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from qdrant_server import QdrantServer
from serving import picture, serving_here

from nearcase.clock import SystemClock
from nearcase.errors import InvalidInput, Unready
from nearcase.index.filters import Equals
from nearcase.index.qdrant.identity import Identity
from nearcase.index.qdrant.index import QdrantIndex
from nearcase.retrieve.annotations import Annotations
from nearcase.retrieve.cases import case_id_of
from nearcase.retrieve.library import Library
from nearcase.retrieve.pending import AddOutcome
from nearcase.settings import Settings
from nearcase.types import Case, CaseFacts
from nearcase.v1 import library_pb2, library_pb2_grpc, search_pb2, search_pb2_grpc

if TYPE_CHECKING:
    from nearcase.types import Embedding

NOTHING = Annotations()


@pytest.fixture
async def server() -> AsyncIterator[QdrantServer]:
    server = QdrantServer()
    await server.start()
    yield server
    await server.stop()


@asynccontextmanager
async def opened(server: QdrantServer) -> AsyncIterator[Library]:
    settings = Settings(index="qdrant", qdrant_url=server.url, qdrant_read_timeout_s=2)
    library = Library(await QdrantIndex.reach(settings, Identity(4, "one")), SystemClock())
    library.start()
    try:
        yield library
    finally:
        await library.close()


def case(number: int) -> Case:
    facts = CaseFacts(patient_id=f"P{number % 3}", instance_uid=f"1.{number}", modality="CT", study_date="20200101")
    return Case(case_id_of(facts, "", 1), facts, content_sha256=f"{number:064}")


def vector(number: int) -> Embedding:
    values = np.random.default_rng(number).normal(size=4).astype(np.float32)
    return (values / np.linalg.norm(values)).astype(np.float32)


async def test_two_servers_see_each_others_cases_and_name_the_same_state(server: QdrantServer) -> None:
    async with opened(server) as one, opened(server) as other:
        before = await one.snapshot()
        assert before == await other.snapshot()
        assert await one.add(case(1), NOTHING, vector(1)) is AddOutcome.ADDED
        assert await other.add(case(1), NOTHING, vector(1)) is AddOutcome.UNCHANGED
        after = await one.snapshot()
        assert before != after == await other.snapshot()
        assert await other.add(case(2), NOTHING, vector(2)) is AddOutcome.ADDED
        assert await one.snapshot() not in (before, after)
        assert await one.count() == 2
        assert [found.case_id for found in await one.known(case(2).content_sha256)] == [case(2).case_id]


async def test_one_bad_case_does_not_harm_its_neighbours(server: QdrantServer) -> None:
    async with opened(server) as library:
        vectors = [vector(number) for number in range(64)]
        vectors[20] = vectors[20] * np.nan
        adding = (library.add(case(n), NOTHING, vectors[n]) for n in range(64))
        outcomes = await asyncio.gather(*adding, return_exceptions=True)
        assert isinstance(outcomes.pop(20), InvalidInput)
        assert outcomes == [AddOutcome.ADDED] * 63
        assert await library.count() == 63


async def test_what_was_not_acknowledged_can_be_sent_again(server: QdrantServer) -> None:
    async with opened(server) as library:
        await library.add(case(1), NOTHING, vector(1))
        server.faults = {"UpsertPoints": deque([grpc.StatusCode.FAILED_PRECONDITION])}
        with pytest.raises(Unready):
            await library.add(case(2), NOTHING, vector(2))
        assert await library.add(case(2), NOTHING, vector(2)) is AddOutcome.ADDED
        assert await library.count(Equals("modality", "CT")) == 2
        assert await library.snapshot() == await library.snapshot()


@pytest.mark.system
async def test_a_server_outlives_the_loss_of_its_index(server: QdrantServer, tmp_path: Path) -> None:
    changed = {"index": "qdrant", "qdrant_url": server.url, "qdrant_read_timeout_s": 2.0, "qdrant_timeout_s": 3.0}
    async with serving_here(tmp_path / "data", **changed) as app, grpc.aio.insecure_channel(app.address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        added = await _add(channel, picture(1))
        assert added.WhichOneof("result") == "added"
        assert await _found(channel, picture(1)) == [added.added.case_id]
        await server.stop()
        started_s = time.monotonic()
        with pytest.raises(grpc.aio.AioRpcError) as lost:
            await _found(channel, picture(1))
        assert lost.value.code() is grpc.StatusCode.UNAVAILABLE
        assert time.monotonic() - started_s < 6
        refused = await _add(channel, picture(2))
        assert refused.error.reason == "INDEX_UNREACHABLE"
        await _told(health, health_pb2.HealthCheckResponse.NOT_SERVING)
        await server.start()
        await _told(health, health_pb2.HealthCheckResponse.SERVING)
        assert (await _add(channel, picture(2))).WhichOneof("result") == "added"
        assert await _found(channel, picture(1)) != []
        assert not (tmp_path / "data" / "library").exists()


async def _add(channel: grpc.aio.Channel, data: bytes) -> library_pb2.AddImagesResponse:
    call = library_pb2_grpc.LibraryServiceStub(channel).AddImages()
    start = library_pb2.AddImagesStart(request_id="1", size_bytes=len(data), data=data)
    await call.write(library_pb2.AddImagesRequest(start=start))
    await call.done_writing()
    (response,) = [response async for response in call]
    assert isinstance(response, library_pb2.AddImagesResponse)
    return response


async def _found(channel: grpc.aio.Channel, data: bytes) -> list[str]:
    options = search_pb2.SearchOptions(k=5, self_exclusion=search_pb2.SELF_EXCLUSION_NONE)
    request = search_pb2.SearchRequest(examples=[search_pb2.Example(image=data)], options=options)
    answer = await search_pb2_grpc.SearchServiceStub(channel).Search(request, timeout=30)
    return [hit.case.case_id for hit in answer.hits]


async def _told(health: health_pb2_grpc.HealthStub, expected: int) -> None:
    request = health_pb2.HealthCheckRequest(service="nearcase.v1.LibraryService")
    async with asyncio.timeout(15):
        while (await health.Check(request)).status != expected:
            await asyncio.sleep(0.2)
