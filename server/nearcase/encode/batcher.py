"""The queue before the encoder: one owner, bounded, earliest deadline first.

Interactive work goes before bulk work. Work whose caller has gone or whose deadline has passed is dropped before it
costs anything. What waits is taken at once: waiting for a fuller batch on an idle encoder is latency for nothing. An
image that the encoder fails on fails alone: its batch is tried again one by one.
"""

from __future__ import annotations

import asyncio
import heapq
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from nearcase.encode.preprocess import normalise
from nearcase.errors import InvalidInput, NearcaseError, Overloaded, Unready

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nearcase.clock import Clock
    from nearcase.encode.base import Encoder
    from nearcase.types import Embedding


@dataclass(frozen=True, slots=True)
class Embedded:
    """An embedding and what it took."""

    embedding: Embedding
    queue_ms: float
    encode_ms: float


@dataclass(order=True, slots=True)
class _Waiting:
    """One image in the queue; the first three fields are its place in it."""

    is_bulk: bool
    deadline_s: float
    number: int
    pixels: NDArray[np.uint8] = field(compare=False)
    since_s: float = field(compare=False)
    future: asyncio.Future[Embedded] = field(compare=False)


class Batcher:
    """Feeds an encoder from many callers.

    Args:
        encoder: Called from `lanes` threads at once.
        clock: For deadlines and timings.
        max_batch: Images in one call; 1 on a CPU, where batches were measured to gain nothing.
        lanes: Calls at once; the number of cores on a CPU, 2 on a GPU, so that copies hide behind the work.
        max_waiting: Images that may wait; one more raises Overloaded.
    """

    def __init__(self, encoder: Encoder, clock: Clock, *, max_batch: int, lanes: int, max_waiting: int) -> None:
        self._encoder, self._clock = encoder, clock
        self._max_batch, self._max_waiting = max_batch, max_waiting
        self._queue: list[_Waiting] = []
        self._count = 0
        self._news = asyncio.Event()
        self._free_lanes = asyncio.Semaphore(lanes)
        self._threads = ThreadPoolExecutor(lanes, thread_name_prefix="encode")
        self._running: set[asyncio.Task[None]] = set()
        self._owner: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def waiting(self) -> int:
        """Images in the queue whose callers still wait."""
        return sum(not item.future.done() for item in self._queue)

    @property
    def running(self) -> int:
        """Batches in the encoder."""
        return len(self._running)

    def start(self) -> None:
        """Starts the owner in the running event loop."""
        self._owner = asyncio.get_running_loop().create_task(self._own(), name="batcher")

    async def embed(
        self, pixels: NDArray[np.uint8], *, deadline_s: float | None = None, bulk: bool = False
    ) -> Embedded:
        """Returns the embedding of (H, W, 3) pixels of the card's size.

        Args:
            pixels: As `preprocess.resize` returns them.
            deadline_s: On the clock's monotonic scale.
            bulk: Goes after all interactive work.

        Raises:
            Overloaded: The queue is full.
            TimeoutError: The deadline passed while the image waited.
            InvalidInput: The encoder failed on this image alone.
            Unready: The batcher is closed.
        """
        if self._closed:
            raise Unready("the server is stopping", reason="STOPPING")
        if self.waiting >= self._max_waiting:
            raise Overloaded(f"{self._max_waiting} images wait for the encoder already; try again later")
        self._count += 1
        future: asyncio.Future[Embedded] = asyncio.get_running_loop().create_future()
        deadline = math.inf if deadline_s is None else deadline_s
        item = _Waiting(bulk, deadline, self._count, pixels, self._clock.monotonic_s(), future)
        heapq.heappush(self._queue, item)
        self._news.set()
        return await future

    async def close(self) -> None:
        """Finishes what waits, then stops."""
        self._closed = True
        while self.waiting or self._running:
            await asyncio.sleep(0.005)
        if self._owner:
            self._owner.cancel()
            await asyncio.gather(self._owner, return_exceptions=True)
        self._threads.shutdown()

    async def _own(self) -> None:
        while True:
            await self._news.wait()
            await self._free_lanes.acquire()
            batch = self._take()
            if not batch:
                self._news.clear()
                self._free_lanes.release()
                continue
            task = asyncio.create_task(self._run(batch))
            self._running.add(task)
            task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._free_lanes.release()

    def _take(self) -> list[_Waiting]:
        """Pops the next batch of the living; the dead are dropped on the way."""
        batch: list[_Waiting] = []
        now_s = self._clock.monotonic_s()
        while self._queue and len(batch) < self._max_batch:
            item = heapq.heappop(self._queue)
            if item.future.done():
                continue
            if item.deadline_s <= now_s:
                item.future.set_exception(TimeoutError("the deadline passed in the encoder's queue"))
                continue
            batch.append(item)
        return batch

    async def _run(self, batch: list[_Waiting]) -> None:
        start_s = self._clock.monotonic_s()
        try:
            embeddings = await self._encode(batch)
        except Exception as error:
            await self._isolate(batch, error)
            return
        encode_ms = (self._clock.monotonic_s() - start_s) * 1e3
        for item, embedding in zip(batch, embeddings, strict=True):
            if not item.future.done():
                item.future.set_result(Embedded(embedding, (start_s - item.since_s) * 1e3, encode_ms))

    async def _encode(self, batch: list[_Waiting]) -> NDArray[np.float32]:
        pixels = np.stack([item.pixels for item in batch])
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._embed, pixels)

    def _embed(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        return self._encoder.embed(normalise(pixels, self._encoder.card.recipe))

    async def _isolate(self, batch: list[_Waiting], error: Exception) -> None:
        if len(batch) > 1:
            for item in batch:
                await self._run([item])
        elif not batch[0].future.done():
            refusal = error if isinstance(error, NearcaseError) else InvalidInput("the encoder failed on this image")
            batch[0].future.set_exception(refusal)
