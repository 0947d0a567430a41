"""What one caller may hold of a real server, and for how long: places, open streams, an expired token."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import grpc
import pytest
from auth_files import FAST, TOKENS, HandClock, callers_file, claims, jwk, rsa_key, token
from grpc_health.v1 import health_pb2, health_pb2_grpc
from serving import picture, scan, serving_here

import nearcase.serve.chunks as chunks_module
from nearcase.audit.query import records_in
from nearcase.errors import Overloaded
from nearcase.serve.caller import Caller
from nearcase.serve.line import ARRIVES_S, LATELY_S, Line
from nearcase.serve.places import ALONE_S, Places
from nearcase.serve.probes import MAX_QUESTION_BYTES, OPEN_AT_ONCE
from nearcase.serve.tokens import LEEWAY_S
from nearcase.settings import MIB
from nearcase.v1 import decision_pb2_grpc, library_pb2, library_pb2_grpc, search_pb2, search_pb2_grpc

KEY = rsa_key()


def metadata(name: str, *roles: str, ends_s: float = 600) -> tuple[tuple[str, str], ...]:
    held = claims(time.time(), sub=name, roles=list(roles), exp=time.time() + ends_s)
    return (("authorization", f"Bearer {token(KEY, held)}"),)


@asynccontextmanager
async def known(folder: Path, *parts: str, **settings: Any) -> AsyncIterator[tuple[Any, grpc.aio.Channel]]:
    """A server that knows its callers, and a channel to it."""
    (folder / "keys").write_text(json.dumps({"keys": [jwk(KEY, "k1")]}))
    file = callers_file(folder, *(parts or (FAST,)), TOKENS)
    async with (
        serving_here(folder / "data", callers=file, **settings) as app,
        grpc.aio.insecure_channel(app.address) as channel,
    ):
        yield app, channel


async def reason(call: Any) -> str:
    return str(dict(await asyncio.wait_for(call.trailing_metadata(), 15) or ()).get("nearcase-reason", ""))


def adding(seed: int) -> library_pb2.AddImagesRequest:
    data = scan(seed)
    start = library_pb2.AddImagesStart(request_id=str(seed), size_bytes=len(data), data=data)
    return library_pb2.AddImagesRequest(start=start)


def test_a_share_is_given_back_and_nobody_is_remembered() -> None:
    places, one, other = Places(4, "streams", HandClock(), is_shared=True), Caller("a"), Caller("b")
    for _ in range(2):
        places.enter(one)
    with pytest.raises(Overloaded, match="2 streams") as refused:
        places.enter(one)
    assert refused.value.reason == "CALLER_PLACES"
    for _ in range(2):
        places.enter(other)
    with pytest.raises(Overloaded) as full:
        places.enter(Caller("c"))
    assert full.value.reason == "TOO_MANY_REQUESTS"
    for caller in (one, one, other, other):
        places.leave(caller)
    assert (places.taken, len(places._of)) == (0, 0)


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_a_share_is_at_least_one(limit: int) -> None:
    for refused in (None, lambda: False):
        places = Places(limit, "requests", HandClock(), is_shared=True, are_refused=refused)
        places.enter(Caller("a"))
        assert places.taken == 1


def held(places: Places, caller: Caller, asked: int) -> int:
    """How many of so many requests get a place."""
    before = places.taken
    for _ in range(asked):
        with contextlib.suppress(Overloaded):
            places.enter(caller)
    return places.taken - before


def ended(places: Places, caller: Caller, streams: int) -> int:
    """How many streams are ended at their next message, each of which gives its place back."""
    count = 0
    for _ in range(streams):
        try:
            places.check(caller)
        except Overloaded:
            places.leave(caller)
            count += 1
    return count


def test_a_caller_that_is_alone_has_all_places_but_the_one_of_the_next() -> None:
    clock, one, other = HandClock(), Caller("gateway"), Caller("b")
    places = Places(16, "requests", clock, is_shared=True, are_refused=lambda: False)
    assert held(places, one, 20) == 15
    assert ended(places, one, 15) == 0  # nobody wants them
    assert held(places, other, 5) == 1
    assert ended(places, one, 15) == 1  # one place is free now, and nobody else is ended
    for _ in range(10):
        held(places, other, 5)
        ended(places, one, 15)
    assert (places._of["", "gateway"], places._of["", "b"]) == (8, 8)
    for caller in (one, other):
        for _ in range(8):
            places.leave(caller)
    assert held(places, one, 20) == 8  # the other was there just now
    clock.run_s += ALONE_S
    assert held(places, one, 20) == 7
    assert len(places._came) == 2


def test_who_was_refused_unknown_may_be_another() -> None:
    line = Line(clock := HandClock(), places=2, max_waiting=4)
    places = Places(16, "requests", clock, is_shared=True, are_refused=line.has_refused)
    line.refuse()
    assert held(places, Caller("a"), 20) == 8
    clock.run_s += LATELY_S
    assert held(places, Caller("a"), 20) == 7


def test_many_callers_share_and_none_is_remembered_for_ever() -> None:
    places = Places(16, "requests", HandClock(), is_shared=True, are_refused=lambda: False)
    for number in range(1000):
        places.enter(Caller(f"c{number}"))
        places.leave(Caller(f"c{number}"))
    assert (places.taken, len(places._of), len(places._came)) == (0, 0, 2)
    assert held(places, Caller("late"), 20) == 8


@pytest.mark.system
async def test_silent_streams_of_one_caller_keep_no_other_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks_module, "MAX_PAUSE_S", 5.0)
    async with known(tmp_path, max_concurrent_requests=8, max_adding_streams=4) as (app, channel):
        search, library = search_pb2_grpc.SearchServiceStub(channel), library_pb2_grpc.LibraryServiceStub(channel)
        decide = decision_pb2_grpc.DecisionServiceStub(channel)
        wild, quiet = metadata("wild", "search", "decide", "add"), metadata("quiet", "search", "add")
        streams = (cast(Any, search).SearchStream, cast(Any, decide).DecideStream)
        silent = [stream(metadata=wild) for stream in streams * 2]
        idle = [cast(Any, library).AddImages(metadata=wild) for _ in range(6)]
        await asyncio.sleep(ARRIVES_S + 0.2)  # until then they fill the line, as any that arrive
        silent += [stream(metadata=wild) for stream in streams * 2]  # alone, it may have 7 of 8
        while not (out := [call for call in silent if call.done()]):
            await asyncio.sleep(0.05)  # which of them came last, the network decides
        (refused_one,) = out
        silent.remove(refused_one)
        assert await reason(refused_one) == "CALLER_PLACES"
        assert (app.interceptor.requests.taken, app.interceptor.streams.taken) == (7, 2)

        asked = search_pb2.SearchRequest(examples=[search_pb2.Example(image=picture(1))])
        await search.Search(asked, metadata=quiet, timeout=10)
        added = [each async for each in library.AddImages(iter([adding(1)]), metadata=quiet, timeout=10)]
        assert added[0].added.case_id

        assert await reason(streams[0](metadata=wild)) == "CALLER_PLACES"  # it is alone no more
        assert [await reason(call) for call in silent] == ["IDLE_STREAM"] * 7
        assert app.interceptor.requests.taken == 0
        refused = [call for call in idle if call.done()]
        assert [await reason(call) for call in refused] == ["CALLER_PLACES"] * 4
        for call in idle:
            call.cancel()


@pytest.mark.system
async def test_an_expired_token_ends_its_open_stream_and_slow_messages_have_places(tmp_path: Path) -> None:
    """Half a message and none look alike to the server; each may hold the memory of the largest."""
    async with known(tmp_path, max_message_bytes=256 * MIB) as (app, channel):
        stub = library_pb2_grpc.LibraryServiceStub(channel)
        call = cast(Any, stub).AddImages(metadata=metadata("brief", "add", ends_s=3.0 - LEEWAY_S))
        await call.write(adding(1))
        assert (await call.read()).added.case_id
        get = cast(Any, channel).stream_unary("/nearcase.v1.LibraryService/GetStatistics")
        slow = [get(metadata=metadata("slow", "audit")) for _ in range(4)]
        await the_open_port_takes_few_questions(app.address)
        await asyncio.sleep(3.5)
        assert [await reason(each) for each in slow if each.done()] == ["CALLER_PLACES"] * 2
        assert app.security.gate.receiving.places.taken == 2  # of the four that have room
        await call.write(adding(2))
        assert await asyncio.wait_for(call.code(), 10) is grpc.StatusCode.UNAUTHENTICATED
        asked = library_pb2.GetStatisticsRequest()
        held = await stub.GetStatistics(asked, metadata=metadata("other", "search"))
        assert held.case_count == 1
        for each in slow:
            each.cancel()


async def the_open_port_takes_few_questions(address: str) -> None:
    """Those of strangers whose questions do not come whole end, the oldest first, and keep no other out."""

    async def half() -> AsyncIterator[bytes]:
        await asyncio.sleep(60)
        yield b""

    async with grpc.aio.insecure_channel(address) as channel:
        names = [f"/grpc.health.v1.Health/{name}" for name in ("Check", "Watch")]
        asks = (cast(Any, channel).stream_unary(names[0]), cast(Any, channel).stream_stream(names[1]))
        halves = [ask(half()) for ask in asks for _ in range(OPEN_AT_ONCE)]
        await asyncio.sleep(0.3)
        assert sum(not each.done() for each in halves) == OPEN_AT_ONCE
        health, asked = health_pb2_grpc.HealthStub(channel), health_pb2.HealthCheckRequest()
        assert (await health.Check(asked, timeout=5)).status
        watches = [health.Watch(asked) for _ in range(2)]
        assert [(await cast(Any, each).read()).status for each in watches] == [
            health_pb2.HealthCheckResponse.SERVING
        ] * 2
        large = health_pb2.HealthCheckRequest(service="x" * 2 * MAX_QUESTION_BYTES)
        for call in (health.Check(large), health.Watch(large)):
            assert await cast(Any, call).code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        for each in (*halves, *watches):
            each.cancel()


@pytest.mark.system
async def test_who_names_a_tenant_is_counted_and_silent_calls_end(tmp_path: Path) -> None:
    async with known(tmp_path, "requests_per_s = 2\n", stream_idle_s=1.0) as (_, channel):
        stub, asked = library_pb2_grpc.LibraryServiceStub(channel), library_pb2.GetStatisticsRequest()
        spoofing = (*metadata("mallory", "search"), ("nearcase-tenant", "south"))
        reasons = [await reason(stub.GetStatistics(asked, metadata=spoofing)) for _ in range(20)]
        assert reasons[0] == "TENANT"
        assert "CALLER_RATE" in reasons
        # A call that is opened and in which nothing is sent, of one answer or of many, does not stay for ever.
        open_calls = (
            (channel.stream_unary, "SearchService/Search"),
            (channel.stream_stream, "LibraryService/ExportCases"),
        )
        silent: list[Any] = [
            make(f"/nearcase.v1.{name}")(metadata=metadata("idle", "search", "admin")) for make, name in open_calls
        ]
        assert [await reason(call) for call in silent] == ["IDLE_STREAM"] * 2
    callers = {kept.event.caller for kept in records_in(tmp_path / "data" / "audit") if kept.event.reason == "TENANT"}
    assert callers == {"mallory"}
