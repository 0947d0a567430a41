"""Fifty searches at once, some cancelled, some past their deadline: no work left behind, no wrong answer."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from serving import scan, serving_here

from nearcase.intake.wire import JsonObject
from nearcase.intake.worker import Result
from nearcase.serve.app import App
from nearcase.v1 import library_pb2 as lib
from nearcase.v1 import library_pb2_grpc, search_pb2_grpc
from nearcase.v1 import search_pb2 as s

pytestmark = pytest.mark.system
SEARCHES = 50


async def test_fifty_searches_some_cancelled_some_late(tmp_path: Path) -> None:
    async with serving_here(tmp_path) as app, grpc.aio.insecure_channel(app.address) as channel:
        await fill(channel, 12)
        stub = search_pb2_grpc.SearchServiceStub(channel)
        expected = [await first_hits(stub, seed) for seed in range(SEARCHES)]
        chosen = random.Random(7)
        fates = [chosen.choice(("whole", "whole", "cancelled", "late")) for _ in range(SEARCHES)]
        answers = await asyncio.gather(*(fated(stub, seed, fate) for seed, fate in enumerate(fates)))
        for seed, (fate, answer) in enumerate(zip(fates, answers, strict=True)):
            assert answer == expected[seed] if fate == "whole" else answer in (None, expected[seed])
        assert fates.count("whole") >= 10
        assert None in answers
        await nothing_left(app)


async def test_a_full_queue_refuses_and_recovers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with (
        serving_here(tmp_path, max_concurrent_requests=4) as app,
        grpc.aio.insecure_channel(app.address) as channel,
    ):
        await fill(channel, 3)
        stub = search_pb2_grpc.SearchServiceStub(channel)
        answers = await asyncio.gather(*(code_of(stub, seed) for seed in range(30)))
        assert set(answers) == {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}
        await nothing_left(app)
        assert await code_of(stub, 1) is grpc.StatusCode.OK
        pictures = asked_for_pictures(app, monkeypatch)
        await stub.Search(request(1))
        named = request(1)
        named.options.case_mask.paths[:] = ["thumbnail_jpeg"]
        await stub.Search(named)
        assert pictures == [False, True]  # nobody waits for a picture that nobody asked for


def asked_for_pictures(app: App, monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Of each file from now on: whether a child was told to make its picture."""
    found: list[bool] = []
    run = app.engine.preparer.sandbox.run

    def noting(data: bytes, options: JsonObject, *, meanwhile: Callable[[], object]) -> Result:
        found.append(options["with_thumbnail"])
        return run(data, options, meanwhile=meanwhile)

    monkeypatch.setattr(app.engine.preparer.sandbox, "run", noting)
    return found


async def test_an_adding_client_that_vanishes_leaves_no_work(tmp_path: Path) -> None:
    async with serving_here(tmp_path) as app, grpc.aio.insecure_channel(app.address) as channel:
        stub = library_pb2_grpc.LibraryServiceStub(channel)
        call = stub.AddImages(iter([to_add(seed) for seed in range(40)]))
        async for _ in call:
            call.cancel()
            break
        await nothing_left(app)
        held = (await stub.GetStatistics(lib.GetStatisticsRequest())).case_count
        assert 1 <= held <= 40


async def test_a_dead_index_process_is_told_by_health_and_started_again(tmp_path: Path) -> None:
    async with serving_here(tmp_path) as app, grpc.aio.insecure_channel(app.address) as channel:
        await fill(channel, 3)
        stub = search_pb2_grpc.SearchServiceStub(channel)
        expected = await first_hits(stub, 1)
        kill_index(app)
        with contextlib.suppress(grpc.aio.AioRpcError):
            await first_hits(stub, 1)
        assert await first_hits(stub, 1) == expected


def kill_index(app: App) -> None:
    import os
    import signal

    from nearcase.index.edge.index import EdgeIndex

    assert isinstance(app.engine.index, EdgeIndex)
    assert app.engine.index.process_id is not None
    os.kill(app.engine.index.process_id, signal.SIGKILL)


async def nothing_left(app: App) -> None:
    """Waits until all places and queues are empty; work that was left behind would keep them full."""
    for _ in range(200):
        places = (app.interceptor.requests.taken, app.interceptor.streams.taken)
        busy = (*places, app.engine.batcher.waiting, app.engine.batcher.running)
        if busy == (0, 0, 0, 0):
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"left behind: {busy}")


async def fill(channel: grpc.aio.Channel, count: int) -> None:
    stub = library_pb2_grpc.LibraryServiceStub(channel)
    answers = [answer async for answer in stub.AddImages(iter([to_add(100 + seed) for seed in range(count)]))]
    assert [answer.WhichOneof("result") for answer in answers] == ["added"] * count


def to_add(seed: int) -> lib.AddImagesRequest:
    data = scan(seed)
    return lib.AddImagesRequest(start=lib.AddImagesStart(request_id=str(seed), size_bytes=len(data), data=data))


def request(seed: int) -> s.SearchRequest:
    return s.SearchRequest(examples=[s.Example(image=scan(seed))], options=s.SearchOptions(k=3))


async def first_hits(stub: search_pb2_grpc.SearchServiceAsyncStub, seed: int) -> list[str]:
    return [hit.case.case_id for hit in (await stub.Search(request(seed))).hits]


async def fated(stub: search_pb2_grpc.SearchServiceAsyncStub, seed: int, fate: str) -> list[str] | None:
    call = stub.Search(request(seed), timeout=0.02 if fate == "late" else 60)
    if fate == "cancelled":
        asyncio.get_running_loop().call_later(0.001 * (seed % 40), call.cancel)
    try:
        return [hit.case.case_id for hit in (await call).hits]
    except asyncio.CancelledError:
        return None
    except grpc.aio.AioRpcError as error:
        if (fate, error.code()) != ("late", grpc.StatusCode.DEADLINE_EXCEEDED):
            raise
        return None


async def code_of(stub: search_pb2_grpc.SearchServiceAsyncStub, seed: int) -> grpc.StatusCode:
    try:
        await stub.Search(request(seed), timeout=60)
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK
