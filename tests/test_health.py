"""Health tells the truth of a real server within seconds, whatever of it breaks, and comes back."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from canary_files import dicom_canary, nifti_canary
from grpc_health.v1 import health_pb2, health_pb2_grpc
from serving import serving_here

import nearcase.serve.canary as canary_module
from nearcase.index.edge.index import EdgeIndex
from nearcase.serve.app import App
from nearcase.serve.health import SERVICES

TOLD_S, BACK_S = 5.0, 30.0
SLACK_S = 3.0
"""For a machine that others use as well."""
SEARCH, ENCODER = SERVICES[0], SERVICES[3]
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.mark.system
async def test_decoding_children_that_die_again_and_again(tmp_path: Path) -> None:
    async with serving_here(tmp_path) as app:
        assert await told(app, SEARCH, SERVING) < TOLD_S
        async with killing(app):
            assert await told(app, SEARCH, NOT_SERVING) < TOLD_S + SLACK_S
            assert await told(app, ENCODER, NOT_SERVING) < TOLD_S
            assert await told(app, "", SERVING) < TOLD_S  # a restart would not help
        assert await told(app, SEARCH, SERVING) < BACK_S


@pytest.mark.system
async def test_an_index_that_hangs(tmp_path: Path) -> None:
    async with serving_here(tmp_path) as app:
        index = app.engine.tenants.index
        assert isinstance(index, EdgeIndex)
        assert index.process_id is not None
        os.kill(index.process_id, signal.SIGSTOP)
        try:
            assert await told(app, SEARCH, NOT_SERVING) < TOLD_S + SLACK_S
            assert await told(app, ENCODER, SERVING) < TOLD_S
        finally:
            os.kill(index.process_id, signal.SIGCONT)
        assert await told(app, SEARCH, SERVING) < BACK_S


@pytest.mark.system
async def test_an_encoder_that_hangs_is_told_and_in_the_end_asks_for_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(canary_module, "STUCK_S", 1.0)
    async with serving_here(tmp_path) as app:
        lanes = app.engine.batcher._free_lanes
        taken = 0
        while not lanes.locked():  # as if each were in a call that never returns
            await lanes.acquire()
            taken += 1
        assert await told(app, SEARCH, NOT_SERVING) < TOLD_S + SLACK_S
        assert await told(app, "", NOT_SERVING) < BACK_S
        for _ in range(taken):
            lanes.release()
        assert await told(app, SEARCH, SERVING) < BACK_S
        assert await told(app, "", SERVING) < BACK_S


@pytest.mark.system
async def test_a_queue_without_an_owner_gets_a_new_one(tmp_path: Path) -> None:
    async with serving_here(tmp_path) as app:
        owner = app.engine.batcher._owner
        assert owner is not None
        owner.cancel()
        await asyncio.sleep(0.1)
        assert not app.engine.batcher.is_alive
        start_s = time.monotonic()
        await app.engine.embed(dicom_canary(), None, deadline_s=None)
        assert time.monotonic() - start_s < TOLD_S + SLACK_S
        assert app.health.revived_count == 1


@pytest.mark.system
async def test_a_canary_whose_embedding_changed_is_not_well(tmp_path: Path) -> None:
    async with serving_here(tmp_path) as app:
        canary = app.health.canary
        assert canary._first is not None
        canary._first = -canary._first
        assert await told(app, SEARCH, NOT_SERVING) < TOLD_S + SLACK_S


def test_the_canaries_are_what_the_tests_make() -> None:
    folder = Path(canary_module.__file__).parent
    assert (folder / "canary.dcm").read_bytes() == dicom_canary()
    assert (folder / "canary.nii.gz").read_bytes() == nifti_canary()


async def told(app: App, service: str, wanted: int) -> float:
    """Returns after how many seconds health says it."""
    start_s = time.monotonic()
    async with grpc.aio.insecure_channel(app.address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        while time.monotonic() - start_s < BACK_S:
            answer = await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=10)
            if answer.status == wanted:
                return time.monotonic() - start_s
            await asyncio.sleep(0.05)
    raise AssertionError(f"health of {service!r} stayed {answer.status}")


@asynccontextmanager
async def killing(app: App) -> AsyncIterator[None]:
    """Kills each decoding child as soon as it is there."""

    async def kill() -> None:
        while True:
            for pid in app.engine.preparer.sandbox.pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            await asyncio.sleep(0.005)

    task = asyncio.create_task(kill())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
