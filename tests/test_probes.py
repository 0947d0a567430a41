"""The port for probes: health alone, and the truth."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, cast

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from serving import serving_here

from nearcase.errors import InvalidInput, Unready
from nearcase.serve.health import SERVICES
from nearcase.serve.probes import MAX_AT_ONCE, MAX_QUESTION_BYTES, OpenCalls, ask
from nearcase.settings_file import read_settings
from nearcase.v1 import library_pb2, library_pb2_grpc

FREE = "127.0.0.1:0"
pytestmark = pytest.mark.system


async def test_a_probe_is_answered_on_a_port_of_its_own(tmp_path: Path) -> None:
    async with serving_here(tmp_path, health_listen=FREE) as app:
        assert app.probes.address != app.address
        told = await asyncio.to_thread(ask, app.probes.address, timeout_s=10)
        assert told == dict.fromkeys(SERVICES, True)
        async with grpc.aio.insecure_channel(app.probes.address) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            live = await health.Check(health_pb2.HealthCheckRequest(), timeout=10)
            assert live.status == health_pb2.HealthCheckResponse.SERVING
    with pytest.raises(Unready, match="health"):
        await asyncio.to_thread(ask, app.probes.address, timeout_s=0.5)


async def test_nothing_but_health_is_there(tmp_path: Path) -> None:
    async with (
        serving_here(tmp_path, health_listen=FREE) as app,
        grpc.aio.insecure_channel(app.probes.address) as channel,
    ):
        library = library_pb2_grpc.LibraryServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await library.GetStatistics(library_pb2.GetStatisticsRequest(), timeout=10)
        assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
        health = health_pb2_grpc.HealthStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as large:
            await health.Check(health_pb2.HealthCheckRequest(service="x" * 2 * MAX_QUESTION_BYTES), timeout=10)
        assert large.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_server_that_drains_is_not_ready(tmp_path: Path) -> None:
    async with serving_here(tmp_path, health_listen=FREE) as app:
        await app.health.stop()
        told = await asyncio.to_thread(ask, app.probes.address, timeout_s=10)
        assert set(told.values()) == {False}
        command = [sys.executable, "-m", "nearcase", "check", "--json", "--health", app.probes.address]
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 1
        assert "SearchService" in json.loads(done.stdout)["health"]["message"]


async def test_without_a_setting_there_is_no_port(tmp_path: Path) -> None:
    async with serving_here(tmp_path) as app:
        assert app.probes.address == ""


async def test_an_address_that_is_taken_stops_the_start(tmp_path: Path) -> None:
    async with serving_here(tmp_path / "first", health_listen=FREE) as app:
        with pytest.raises(Unready, match="probes"):
            async with serving_here(tmp_path / "second", health_listen=app.probes.address):
                pass


def test_an_address_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidInput, match="health_listen"):
        read_settings(environment={}, health_listen="somewhere")


async def test_a_flood_of_watches_and_of_half_questions_blinds_no_probe(tmp_path: Path) -> None:
    """A probe is answered at once though more of each are open, by several connections, than are heard at once."""

    async def half() -> AsyncIterator[bytes]:
        await asyncio.sleep(60)
        yield b""

    async with serving_here(tmp_path, health_listen=FREE) as app, AsyncExitStack() as stack:
        apart = [("grpc.use_local_subchannel_pool", 1)]
        channels = [
            await stack.enter_async_context(grpc.aio.insecure_channel(app.probes.address, options=apart))
            for _ in range(4)
        ]
        watch = health_pb2_grpc.HealthStub(channels[0]).Watch(health_pb2.HealthCheckRequest())
        assert await asyncio.wait_for(watch.code(), 10) is grpc.StatusCode.UNIMPLEMENTED
        checks = [cast(Any, channel).stream_unary("/grpc.health.v1.Health/Check") for channel in channels[:3]]
        halves = [check(half()) for check in checks for _ in range(MAX_AT_ONCE // 2)]
        await asyncio.sleep(0.5)
        health = health_pb2_grpc.HealthStub(channels[3])
        assert (await health.Check(health_pb2.HealthCheckRequest(), timeout=3)).status
        assert sum(not call.done() for call in halves) <= MAX_AT_ONCE
        ended = [call for call in halves if call.done()]
        assert {await call.code() for call in ended} == {grpc.StatusCode.DEADLINE_EXCEEDED}
        for call in halves:
            call.cancel()


async def test_one_watch_too_many_ends_the_oldest() -> None:
    calls, ended = OpenCalls(2), []

    async def watch(number: int) -> None:
        try:
            async with calls.one(None):
                await asyncio.sleep(60)
        except TimeoutError:
            ended.append(number)

    watches = [asyncio.create_task(watch(number)) for number in range(5)]
    await asyncio.sleep(0.1)
    assert ended == [0, 1, 2]
    for each in watches:
        each.cancel()
    await asyncio.gather(*watches, return_exceptions=True)
    assert not calls._open
