"""One call to a Qdrant server: its time limit, its repetitions, and its failures in our words.

Every call of the adapter may be repeated: ids are made from content, deletions name what is to be gone, and reads
change nothing.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

import grpc
from qdrant_client.common.client_exceptions import QdrantException

from nearcase.errors import InvalidInput, NearcaseError, Overloaded, Unready

T = TypeVar("T")
Call = Callable[[int], Awaitable[T]]
"""Makes the call anew, with the whole seconds that the server may take."""

PAUSES_S = (0.1, 0.2, 0.4, 0.8, 1.6)
"""Between repetitions, less a random part: a server that restarts is back within some seconds, or not soon."""

_PASSING = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.ABORTED})
_KEYS = frozenset({grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED})


class Calls:
    """Makes calls until `close`; afterwards, and for those that `close` interrupts, raises Unready."""

    def __init__(self, *, read_limit_s: float, write_limit_s: float) -> None:
        self._read_limit_s, self._write_limit_s = read_limit_s, write_limit_s
        self._is_closed = False

    def close(self) -> None:
        """Refuses further calls."""
        self._is_closed = True

    async def read(self, what: str, call: Call[T]) -> T:
        """Returns the answer within the limit of reads.

        Raises:
            InvalidInput: The server can not read the call.
            Overloaded: The server limits the rate of calls.
            Unready: The server is not there, too late, out of order, or refuses the key.
        """
        return await self._made(what, call, self._read_limit_s, _PASSING)

    async def read_all(self, what: str, call: Call[T]) -> T:
        """Returns the answer of a read that goes over the whole collection, and takes as long as a write may."""
        return await self._made(what, call, self._write_limit_s, _PASSING)

    async def write(self, what: str, call: Call[T]) -> T:
        """Returns the answer of a write; when it raises Unready, whether it was done is not known.

        A replica that fails in a write makes the server answer INTERNAL while the others keep what they have taken
        (qdrant issue 4626): only repeating mends that.
        """
        return await self._made(what, call, self._write_limit_s, _PASSING | {grpc.StatusCode.INTERNAL})

    async def _made(self, what: str, call: Call[T], limit_s: float, passing: frozenset[grpc.StatusCode]) -> T:
        until_s = asyncio.get_running_loop().time() + limit_s
        for pause_s in (*PAUSES_S, math.inf):
            try:
                return await self._once(what, call, until_s, limit_s)
            except grpc.RpcError as error:
                left_s = until_s - asyncio.get_running_loop().time()
                if not isinstance(error, grpc.aio.AioRpcError) or error.code() not in passing or pause_s >= left_s:
                    raise _refusal(what, error) from None
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311  spreads servers, guards nothing
        raise AssertionError("the last pause is endless")

    async def _once(self, what: str, call: Call[T], until_s: float, limit_s: float) -> T:
        """One attempt has half of the time, so that one lost answer does not spend it all."""
        self._check_open()
        left_s = min(until_s - asyncio.get_running_loop().time(), limit_s / 2)
        try:
            async with asyncio.timeout(left_s + 1):  # the server's own limit comes first, and says more
                return await call(max(1, math.ceil(left_s)))
        except TimeoutError:
            raise unreachable(what, "it did not answer in time") from None
        except QdrantException as error:
            raise Overloaded("The Qdrant server limits the rate of calls; try again later.") from error
        except (ValueError, TypeError) as error:
            message = f"The Qdrant client can not read what came for {what} ({type(error).__name__}): is the server's"
            raise Unready(f"{message} version within one minor of the client's?", reason="INDEX_FAILED") from error
        except (asyncio.CancelledError, grpc.aio.UsageError):
            if _is_cancelled():
                raise
            self._check_open()  # the channel was closed under the call
            raise

    def _check_open(self) -> None:
        if self._is_closed:
            raise Unready("The index is closed.")


def unreachable(what: str, why: str) -> Unready:
    """Returns the error of a server that does not answer."""
    message = f"The Qdrant server does not serve {what}: {why}; repeating the call is safe."
    return Unready(message, reason="INDEX_UNREACHABLE")


def _refusal(what: str, error: grpc.RpcError) -> NearcaseError:
    """The server's own text stays out: it may repeat a value of the call, which may be a patient's."""
    code = error.code() if isinstance(error, grpc.aio.AioRpcError) else grpc.StatusCode.UNKNOWN
    if code in _KEYS:
        return Unready(f"The Qdrant server refuses {what}: expected a valid qdrant_api_key.", reason="INDEX_REFUSED")
    if code is grpc.StatusCode.INVALID_ARGUMENT:
        return InvalidInput(f"The Qdrant server can not read this {what}.")
    if code is grpc.StatusCode.NOT_FOUND:
        return Unready(f"The Qdrant server lost the collection before this {what}; restore it and start again.")
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return Overloaded("The Qdrant server is out of a resource, or limits the rate of calls; try again later.")
    if code in _PASSING:
        return unreachable(what, f"{code.name} after several attempts")
    return Unready(f"The Qdrant server failed in {what} with {code.name}; its log says why.", reason="INDEX_FAILED")


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
