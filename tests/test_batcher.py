"""The queue before the encoder, with a clock that the test moves and an encoder that the test holds."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from tiny_encoders import picture_recipe

from nearcase.encode.batcher import Batcher, Embedded
from nearcase.encode.card import Card, read_card
from nearcase.errors import InvalidInput, Overloaded, Unready

POISON = 13


class StillClock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.time_s = 100.0

    def now_s(self) -> float:
        return self.time_s

    def monotonic_s(self) -> float:
        return self.time_s


class HeldEncoder:
    """Notes the first pixel of each image in each batch; waits while it is held; fails on POISON."""

    runtime = "a test"

    def __init__(self, card: Card) -> None:
        self.card = card
        self.batches: list[list[int]] = []
        self.go = threading.Event()

    def embed(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        assert self.go.wait(10)
        red = batch[:, 0, 0, 0] * picture_recipe(self.card).std[0] + picture_recipe(self.card).mean[0]
        names = [round(float(value) * 255) for value in red]
        self.batches.append(names)
        if POISON in names:
            raise RuntimeError("poison")
        return np.array([[name, 0.0] for name in names], dtype=np.float32)


@asynccontextmanager
async def batching(folder: Path, **options: int) -> AsyncIterator[tuple[Batcher, HeldEncoder, StillClock]]:
    encoder, clock = HeldEncoder(read_card(folder)), StillClock()
    given = {"max_batch": 1, "lanes": 1, "max_waiting": 100} | options
    batcher = Batcher(
        encoder, clock, max_batch=given["max_batch"], lanes=given["lanes"], max_waiting=given["max_waiting"]
    )
    batcher.start()
    try:
        yield batcher, encoder, clock
    finally:
        encoder.go.set()
        await batcher.close()


def pixels(name: int) -> NDArray[np.uint8]:
    return np.full((224, 224, 3), name, np.uint8)


async def enqueued(batcher: Batcher, *names: int, **options: float) -> list[asyncio.Task[Embedded]]:
    tasks = [asyncio.create_task(batcher.embed(pixels(name), **options)) for name in names]  # type: ignore[arg-type]
    await asyncio.sleep(0.05)
    return tasks


async def test_bulk_waits_for_interactive_and_the_earliest_deadline_goes_first(encoder_folder: Path) -> None:
    async with batching(encoder_folder) as (batcher, encoder, _):
        tasks = await enqueued(batcher, 1)  # takes the lane, so that the others queue
        tasks += await enqueued(batcher, 2, bulk=True)
        tasks += await enqueued(batcher, 3, deadline_s=500.0)
        tasks += await enqueued(batcher, 4, deadline_s=200.0)
        tasks += await enqueued(batcher, 5)
        encoder.go.set()
        await asyncio.gather(*tasks)
        assert encoder.batches == [[1], [4], [3], [5], [2]]


async def test_cancelled_and_expired_work_never_reaches_the_encoder(encoder_folder: Path) -> None:
    async with batching(encoder_folder) as (batcher, encoder, clock):
        (first,) = await enqueued(batcher, 1)
        (cancelled,) = await enqueued(batcher, 2)
        (late,) = await enqueued(batcher, 3, deadline_s=101.0)
        (alive,) = await enqueued(batcher, 4)
        cancelled.cancel()
        await asyncio.sleep(0)
        assert batcher.waiting == 2
        clock.time_s = 101.5
        encoder.go.set()
        await asyncio.gather(first, alive)
        with pytest.raises(TimeoutError):
            await late
        assert encoder.batches == [[1], [4]]
        assert batcher.waiting == 0


async def test_what_waits_is_taken_at_once_and_poison_fails_alone(encoder_folder: Path) -> None:
    async with batching(encoder_folder, max_batch=4) as (batcher, encoder, _):
        first = await enqueued(batcher, 1)
        tasks = await enqueued(batcher, 10, 11, 12, POISON, 14)
        encoder.go.set()
        results = await asyncio.gather(*first, *tasks, return_exceptions=True)
        assert encoder.batches == [[1], [10, 11, 12, POISON], [10], [11], [12], [POISON], [14]]
        failed = [isinstance(result, InvalidInput) for result in results]
        assert failed == [False, False, False, False, True, False]


async def test_a_full_queue_refuses_and_the_cancelled_do_not_count(encoder_folder: Path) -> None:
    async with batching(encoder_folder, max_waiting=2) as (batcher, encoder, _):
        tasks = await enqueued(batcher, 1)  # is in the encoder, so it does not wait
        tasks += await enqueued(batcher, 2, 3)
        with pytest.raises(Overloaded):
            await batcher.embed(pixels(4))
        tasks[1].cancel()
        await asyncio.sleep(0)
        tasks += await enqueued(batcher, 5)
        encoder.go.set()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert encoder.batches == [[1], [3], [5]]


async def test_closing_finishes_what_waits_and_refuses_what_comes(encoder_folder: Path) -> None:
    async with batching(encoder_folder) as (batcher, encoder, _):
        tasks = await enqueued(batcher, 1)
        tasks += await enqueued(batcher, 2)
        closing = asyncio.create_task(batcher.close())
        await asyncio.sleep(0)
        with pytest.raises(Unready):
            await batcher.embed(pixels(3))
        encoder.go.set()
        await closing
        assert all(task.done() for task in tasks)
        assert encoder.batches == [[1], [2]]


async def test_lanes_run_side_by_side(encoder_folder: Path) -> None:
    async with batching(encoder_folder, lanes=2) as (batcher, encoder, _):
        tasks = await enqueued(batcher, 1, 2, 3)
        assert (batcher.running, batcher.waiting) == (2, 1)
        encoder.go.set()
        await asyncio.gather(*tasks)


async def test_an_idle_encoder_begins_before_anybody_else_is_woken(encoder_folder: Path) -> None:
    async with batching(encoder_folder) as (batcher, encoder, _):
        await asyncio.sleep(0)  # the owner begins to wait
        task = asyncio.create_task(batcher.embed(pixels(1)))
        await asyncio.sleep(0)
        assert (batcher.running, batcher.waiting) == (1, 0)
        encoder.go.set()
        assert (await task).queue_ms == 0


async def test_an_encoder_without_a_thread_fails_and_keeps_its_lane(encoder_folder: Path) -> None:
    async with batching(encoder_folder) as (batcher, _, _):
        await asyncio.sleep(0)
        batcher._threads.shutdown()  # as where the system gives no more threads
        for _ in range(3):
            with pytest.raises(InvalidInput):
                await batcher.embed(pixels(1))
        await asyncio.sleep(0.01)
        assert (batcher.running, batcher.waiting) == (0, 0)


async def test_whose_caller_goes_while_it_runs_leaves_the_lane_to_the_next(encoder_folder: Path) -> None:
    async with batching(encoder_folder) as (batcher, encoder, _):
        (gone,) = await enqueued(batcher, 1)
        (next_one,) = await enqueued(batcher, 2)
        gone.cancel()
        encoder.go.set()
        await next_one
        assert encoder.batches == [[1], [2]]
        assert gone.cancelled()
