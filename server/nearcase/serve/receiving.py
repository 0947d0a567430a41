"""Messages that are slow to arrive: how many at once, since each holds memory that nobody can count.

What came of half a message is in grpc's own memory: it tells neither how much that is nor how much is announced, and
lets a message be as large as the server's largest. So the calls are counted in which one takes long, and those beyond
the bound are ended, which gives their memory back. Small messages never take long, and are not counted.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

from nearcase.errors import Overloaded

if TYPE_CHECKING:
    from nearcase.serve.caller import Caller
    from nearcase.serve.places import Places

GRACE_S = 0.5
"""A message that is not whole after so long is slow. The network fills no more memory in that time than it carries."""

_END: Any = object()


class Receiving:
    """Hands messages on as they become whole.

    Args:
        places: For calls with a slow message.
    """

    def __init__(self, places: Places) -> None:
        self.places = places

    async def each(self, requests: AsyncIterator[Any], caller: Caller) -> AsyncIterator[Any]:
        """Each message; raises Overloaded where one is slow and there is no place for it."""
        incoming = aiter(requests)
        while (message := await self._next(incoming, caller)) is not _END:
            yield message

    async def _next(self, incoming: AsyncIterator[Any], caller: Caller) -> Any:
        slow = _Slow(self.places, caller)
        try:
            async with asyncio.timeout(None) as limit:
                slow.watch(limit)
                return await anext(incoming, _END)
        except TimeoutError:
            if slow.refusal is None:
                raise
            raise slow.refusal from None
        finally:
            slow.end()


class _Slow:
    """Takes a place when one message took too long, and ends the wait for it where there is none."""

    def __init__(self, places: Places, caller: Caller) -> None:
        self._places, self._caller, self._has_place = places, caller, False
        self._timer: asyncio.TimerHandle | None = None
        self.refusal: Overloaded | None = None

    def watch(self, limit: asyncio.Timeout) -> None:
        """Begins to count the time.

        It is counted in halves: a loop that was held up looks in between at what came meanwhile.
        """
        self._timer = self._later(lambda: self._wait_on(limit))

    def end(self) -> None:
        """The message is there, or nobody waits for it any more."""
        if self._timer:
            self._timer.cancel()
        if self._has_place:
            self._places.leave(self._caller)

    def _wait_on(self, limit: asyncio.Timeout) -> None:
        self._timer = self._later(lambda: self._enter(limit))

    def _enter(self, limit: asyncio.Timeout) -> None:
        try:
            self._places.enter(self._caller)
        except Overloaded as error:
            self.refusal = error
            limit.reschedule(0.0)
        else:
            self._has_place = True

    @staticmethod
    def _later(then: Callable[[], None]) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(GRACE_S / 2, then)
