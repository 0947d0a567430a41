"""Bytes in flight: never more than the limit, all given back, and nobody waits for ever."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from serving import picture, scan, serving_here

from nearcase.errors import Overloaded
from nearcase.serve.flight import Flight
from nearcase.settings import MIB
from nearcase.v1 import library_pb2 as lib
from nearcase.v1 import library_pb2_grpc, search_pb2_grpc
from nearcase.v1 import search_pb2 as s

LIMIT = 1000


def test_what_is_taken_is_given_back_whatever_happens() -> None:
    flight = Flight(LIMIT)
    with flight.hold() as held:
        held.take(600)
        held.take(400)
        with pytest.raises(Overloaded) as refused:
            held.take(1)
        assert refused.value.reason == "BYTES_IN_FLIGHT"
    assert flight.held_bytes == 0


def test_one_alone_is_let_in_whatever_its_size() -> None:
    flight = Flight(LIMIT)
    with flight.hold() as held:
        held.take(5 * LIMIT)
        assert flight.held_bytes == 5 * LIMIT


async def test_bulk_work_waits_keeps_its_half_and_leaves_nothing() -> None:
    flight, chance, most = Flight(LIMIT), random.Random(5), 0

    async def add(size: int) -> None:
        nonlocal most
        async with flight.wait(size):
            most = max(most, flight.held_bytes)
            await asyncio.sleep(0)

    tasks = [asyncio.create_task(add(chance.randint(1, LIMIT // 2))) for _ in range(200)]
    for task in chance.sample(tasks, 50):
        asyncio.get_running_loop().call_soon(task.cancel)
    await asyncio.gather(*tasks, return_exceptions=True)
    assert flight.held_bytes == 0
    assert most <= LIMIT // 2


async def test_bulk_work_larger_than_its_half_goes_alone() -> None:
    flight = Flight(LIMIT)
    async with asyncio.timeout(5), flight.wait(10 * LIMIT):
        assert flight.held_bytes == 10 * LIMIT


@pytest.mark.system
async def test_an_overload_is_refused_with_a_time_to_come_back_and_nothing_is_left(tmp_path: Path) -> None:
    limits = {"max_bytes_in_flight": 2 * MIB, "max_message_bytes": 2 * MIB, "max_image_bytes": 2 * MIB}
    async with (
        serving_here(tmp_path, **limits) as app,
        grpc.aio.insecure_channel(app.address) as channel,
    ):
        stub = search_pb2_grpc.SearchServiceStub(channel)
        data = scan(1, SeriesDescription="x" * 10, PixelPaddingValue=0)
        padded = picture(1) + bytes(MIB // 2)
        request = s.SearchRequest(examples=[s.Example(image=padded)])
        answers = await asyncio.gather(*(stub.Search(request, timeout=60) for _ in range(60)), return_exceptions=True)
        refused = [answer for answer in answers if isinstance(answer, grpc.aio.AioRpcError)]
        codes = {answer.code() for answer in refused}
        assert len(refused) < 60
        assert codes == {grpc.StatusCode.RESOURCE_EXHAUSTED}
        told = dict(refused[0].trailing_metadata())
        status = status_pb2.Status.FromString(told["grpc-status-details-bin"])
        details = [detail for detail in status.details if detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR)]
        assert len(details) == 1
        library = library_pb2_grpc.LibraryServiceStub(channel)
        items = [lib.AddImagesStart(request_id=str(n), size_bytes=len(data), data=data) for n in range(20)]
        added = [answer async for answer in library.AddImages(iter([lib.AddImagesRequest(start=i) for i in items]))]
        assert {answer.WhichOneof("result") for answer in added} == {"added"}
        assert app.engine.flight.held_bytes == 0
