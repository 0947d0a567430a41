"""Bytes of requests in the server, of all callers together: memory stays bounded however many come at once.

A request of one answer is refused when there is no room, and its caller tries again; a stream of images to add waits,
which its client feels as back-pressure, and leaves half of the room to the others.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from nearcase.errors import Overloaded

BULK_SHARE = 0.5


class Flight:
    """Counts bytes from their arrival until the work on them ended.

    Args:
        limit_bytes: Of all requests; one alone is let in whatever its size, as other limits bound that.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit, self._bulk_limit = limit_bytes, int(BULK_SHARE * limit_bytes)
        self.held_bytes = 0
        self._bulk_bytes = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @contextmanager
    def hold(self) -> Iterator[Hold]:
        """What is taken inside is given back at its end."""
        held = Hold(self)
        try:
            yield held
        finally:
            self._give_back(held.size)

    @asynccontextmanager
    async def wait(self, size: int) -> AsyncIterator[None]:
        """Holds bytes of bulk work; waits its turn until there is room, first come, first served."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((size, turn))
        self._admit()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._end(size)
            raise
        try:
            yield
        finally:
            self._end(size)

    def take(self, size: int) -> None:
        """Counts bytes that came in.

        Raises:
            Overloaded: There is no room for them.
        """
        if self.held_bytes and self.held_bytes + size > self._limit:
            message = f"requests of {self._limit} bytes are in progress; try again later"
            raise Overloaded(message, reason="BYTES_IN_FLIGHT")
        self.held_bytes += size

    def _end(self, size: int) -> None:
        self._bulk_bytes -= size
        self._give_back(size)

    def _give_back(self, size: int) -> None:
        self.held_bytes -= size
        self._admit()

    def _admit(self) -> None:
        while self._waiting:
            size, turn = self._waiting[0]
            fits = self._bulk_bytes + size <= self._bulk_limit and self.held_bytes + size <= self._limit
            if not turn.done() and self._bulk_bytes and not fits:
                return
            self._waiting.popleft()
            if not turn.done():
                self._bulk_bytes += size
                self.held_bytes += size
                turn.set_result(None)


class Hold:
    """The bytes of one request."""

    def __init__(self, flight: Flight) -> None:
        self._flight = flight
        self.size = 0

    def take(self, size: int) -> None:
        """As `Flight.take`."""
        self._flight.take(size)
        self.size += size
