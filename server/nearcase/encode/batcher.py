"""The queue before the encoder: one owner, bounded, earliest deadline first.

Interactive work goes before bulk work. Work whose caller has gone or whose deadline has passed is dropped before it
costs anything. What waits is taken at once: waiting for a fuller batch on an idle encoder is latency for nothing, and
so is waking the owner where a batch is one image. An image that the encoder fails on fails alone: its batch is tried
again one by one.
"""

from __future__ import annotations

import asyncio
import heapq
import math
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from nearcase.encode.buckets import pieces
from nearcase.encode.inputs import to_batch
from nearcase.errors import InvalidInput, NearcaseError, Overloaded, Unready
from nearcase.processors import WORKING, give_way

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nearcase.clock import Clock
    from nearcase.encode.base import Encoder
    from nearcase.encode.inputs import Frame
    from nearcase.types import Embedding


@dataclass(frozen=True, slots=True)
class Embedded:
    """An embedding and what it took."""

    embedding: Embedding
    queue_ms: float
    encode_ms: float


@dataclass(slots=True)
class Counts:
    """What a batcher did since its start; a monitoring system reads it."""

    embedded: int = 0  # images
    batches: Counter[int] = field(default_factory=Counter)  # calls of the encoder, by how many images each had
    padded: int = 0  # places of batches that no image filled, where sizes are fixed
    cancelled: int = 0  # their callers went before the work began
    expired: int = 0  # their deadlines passed before it
    refused: int = 0  # the queue was full
    failed: int = 0  # the encoder failed on them alone


@dataclass(order=True, slots=True)
class _Waiting:
    """One image in the queue; the first three fields are its place in it."""

    is_bulk: bool
    deadline_s: float
    number: int
    pixels: Frame = field(compare=False)
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
        buckets: The sizes that the encoder pads batches to; none where it takes any.
    """

    def __init__(
        self,
        encoder: Encoder,
        clock: Clock,
        *,
        max_batch: int,
        lanes: int,
        max_waiting: int,
        buckets: tuple[int, ...] = (),
    ) -> None:
        self._encoder, self._clock, self._buckets = encoder, clock, buckets
        self._max_batch, self._max_waiting = max_batch, max_waiting
        self.lanes = lanes
        self._queue: list[_Waiting] = []
        self.counts = Counts()
        self._count, self._running = 0, 0
        self._news = asyncio.Event()
        self._free_lanes = asyncio.Semaphore(lanes)
        self._threads = ThreadPoolExecutor(lanes, "encode", give_way, (WORKING,))
        self._isolating: set[asyncio.Task[None]] = set()
        self._owner: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def waiting(self) -> int:
        """Images in the queue whose callers still wait."""
        return sum(not item.future.done() for item in self._queue)

    @property
    def running(self) -> int:
        """Batches in the encoder."""
        return self._running

    @property
    def is_alive(self) -> bool:
        """Whether somebody takes from the queue."""
        return self._owner is not None and not self._owner.done()

    def start(self) -> None:
        """Starts the owner in the running event loop; what already waits is taken up."""
        self._owner = asyncio.get_running_loop().create_task(self._own(), name="batcher")

    async def embed(self, pixels: Frame, *, deadline_s: float | None = None, bulk: bool = False) -> Embedded:
        """Returns the embedding of a frame of the card's size.

        Args:
            pixels: As `prepare` made them: (H, W, 3) uint8, or (X, Y, Z) float32.
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
            self.counts.refused += 1
            raise Overloaded(f"{self._max_waiting} images wait for the encoder already; try again later")
        self._count += 1
        future: asyncio.Future[Embedded] = asyncio.get_running_loop().create_future()
        deadline = math.inf if deadline_s is None else deadline_s
        item = _Waiting(bulk, deadline, self._count, pixels, self._clock.monotonic_s(), future)
        heapq.heappush(self._queue, item)
        if self._max_batch == 1 and self.is_alive and not self._free_lanes.locked():
            await self._next()
        if self._queue:
            self._news.set()
        return await future

    async def close(self) -> None:
        """Finishes what waits, then stops."""
        self._closed = True
        while self.waiting or self._running or self._isolating:
            await asyncio.sleep(0.005)
        if self._owner:
            self._owner.cancel()
            await asyncio.gather(self._owner, return_exceptions=True)
        self._threads.shutdown()

    async def _own(self) -> None:
        while True:
            await self._news.wait()
            if not await self._next():
                self._news.clear()

    async def _next(self) -> bool:
        """Waits for a lane and has the next batch run there; False where nobody waits who lives."""
        await self._free_lanes.acquire()
        batch = self._take()
        if batch:
            self._run(batch)
        else:
            self._free_lanes.release()
        return bool(batch)

    def _take(self) -> list[_Waiting]:
        """Pops the next batch of the living; the dead are dropped on the way."""
        batch: list[_Waiting] = []
        now_s = self._clock.monotonic_s()
        while self._queue and len(batch) < self._max_batch:
            item = heapq.heappop(self._queue)
            if item.future.done():
                self.counts.cancelled += 1
                continue
            if item.deadline_s <= now_s:
                self.counts.expired += 1
                item.future.set_exception(TimeoutError("the deadline passed in the encoder's queue"))
                continue
            batch.append(item)
        return batch

    def _run(self, batch: list[_Waiting]) -> None:
        """Has a thread embed it, which tells the loop itself: a task in between would have to be woken."""
        loop, start_s = asyncio.get_running_loop(), self._clock.monotonic_s()
        self._running += 1

        def ended(work: Future[NDArray[np.float32]]) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._end, batch, work, start_s)

        try:
            self._threads.submit(self._embed, [item.pixels for item in batch]).add_done_callback(ended)
        except RuntimeError as error:  # no thread can be had
            self._begin_isolating(batch, error)

    def _end(self, batch: list[_Waiting], work: Future[NDArray[np.float32]], start_s: float) -> None:
        error = work.exception()
        if error is None:
            self._leave()
            self._settle(batch, work.result(), start_s)
        else:
            self._begin_isolating(batch, error)

    def _begin_isolating(self, batch: list[_Waiting], error: BaseException) -> None:
        task = asyncio.get_running_loop().create_task(self._isolate(batch, error))
        self._isolating.add(task)
        task.add_done_callback(self._isolated)

    def _isolated(self, task: asyncio.Task[None]) -> None:
        self._isolating.discard(task)
        self._leave()

    def _leave(self) -> None:
        self._running -= 1
        self._free_lanes.release()

    def _settle(self, batch: list[_Waiting], embeddings: NDArray[np.float32], start_s: float) -> None:
        encode_ms = (self._clock.monotonic_s() - start_s) * 1e3
        self._count_batch(len(batch))
        for item, embedding in zip(batch, embeddings, strict=True):
            if not item.future.done():
                item.future.set_result(Embedded(embedding, (start_s - item.since_s) * 1e3, encode_ms))

    def _count_batch(self, size: int) -> None:
        self.counts.embedded += size
        self.counts.batches[size] += 1
        if self._buckets:
            self.counts.padded += sum(bucket - last + first for first, last, bucket in pieces(size, self._buckets))

    def _embed(self, frames: Sequence[Frame]) -> NDArray[np.float32]:
        pixels: Frame = np.stack(frames) if len(frames) > 1 else frames[0][None]
        return self._encoder.embed(to_batch(pixels, self._encoder.card.recipe))

    async def _isolate(self, batch: list[_Waiting], error: BaseException) -> None:
        """Tries each of several by itself; one alone has its error."""
        if len(batch) == 1:
            self._refuse(batch[0], error)
            return
        loop = asyncio.get_running_loop()
        for item in batch:
            start_s = self._clock.monotonic_s()
            try:
                embeddings = await loop.run_in_executor(self._threads, self._embed, [item.pixels])
            except Exception as its_error:
                self._refuse(item, its_error)
            else:
                self._settle([item], embeddings, start_s)

    def _refuse(self, item: _Waiting, error: BaseException) -> None:
        self.counts.failed += 1
        if not item.future.done():
            refusal = error if isinstance(error, NearcaseError) else InvalidInput("the encoder failed on this image")
            item.future.set_exception(refusal)
