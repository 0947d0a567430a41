"""The gate before every call: who asks, whether they may, and how much; only then is the body read.

Here a call of one message is served as a stream of one, because grpc.aio takes the message of such a call in before
its handler runs, and a stream's only when it is asked for: who is refused here costs no more than the headers.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast

import grpc

from nearcase.errors import InvalidInput, NearcaseError, NotAllowed, Overloaded, Unsupported
from nearcase.serve.caller import Caller, Metadata, enter, no_tenant
from nearcase.serve.context import Context, Handler
from nearcase.serve.interceptor import abort
from nearcase.serve.roles import NEEDED, OPEN, may

if TYPE_CHECKING:
    from nearcase.clock import Clock
    from nearcase.serve.limits import Limits
    from nearcase.serve.receiving import Receiving

log = logging.getLogger(__name__)
_OURS = "/nearcase."


class Knows(Protocol):
    """Tells who asks."""

    async def caller(self, metadata: Metadata, context: Context) -> Caller:
        """Returns who asks.

        Raises:
            NotAllowed: It is a stranger; the message says nothing more, the log says why.
            InvalidInput: Nobody is asked, and the request names a tenant and must not, or does not and must.
            Unready: Who it is can not be told now.
        """
        ...


class Gate(grpc.aio.ServerInterceptor):
    """Lets callers through to what their roles allow.

    Args:
        knows: Who is who.
        is_open: Nobody needs a role, as nobody is asked who they are.
        idle_s: Time for the whole message of a call of one.
        receiving: Bounds the messages that are slow to arrive.
        limits: What each may ask; None on an open server, where callers can not be told apart.
        clock: Spaces the lines in the log.
    """

    def __init__(
        self,
        knows: Knows,
        clock: Clock,
        *,
        is_open: bool,
        idle_s: float,
        receiving: Receiving,
        limits: Limits | None = None,
    ) -> None:
        self._knows, self._is_open, self._limits, self._idle_s = knows, is_open, limits, idle_s
        self.receiving = receiving
        self._refusals = _Refusals(clock)
        self.on_refused: Callable[[str, NearcaseError, Context], None] | None = None
        """Told of each call that ends here, with its method."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Wraps every handler but those of health, which guard themselves; a stranger does not even learn which calls
        exist."""
        handler, method = await continuation(handler_call_details), handler_call_details.method
        if method in OPEN or (self._is_open and not (handler and method.startswith(_OURS))):
            return handler
        metadata = tuple(cast("Metadata", handler_call_details.invocation_metadata or ()))
        if handler is None:
            return grpc.stream_unary_rpc_method_handler(self._absent(metadata))
        call, read = cast(Any, handler), sized(cast(Any, handler).request_deserializer)
        if call.response_streaming:
            inner = call.stream_stream if call.request_streaming else call.unary_stream
            streamed = self._streaming(inner, call.request_streaming, method, metadata)
            return grpc.stream_stream_rpc_method_handler(streamed, read, call.response_serializer)
        inner = call.stream_unary if call.request_streaming else call.unary_unary
        answered = self._answering(inner, call.request_streaming, method, metadata)
        return grpc.stream_unary_rpc_method_handler(answered, read, call.response_serializer)

    def _answering(self, inner: Any, takes_stream: bool, method: str, metadata: Metadata) -> Any:
        async def handle(requests: AsyncIterator[Sized], context: Context) -> Any:
            async with self._admitted(method, metadata, context) as held:
                taken = held.all_of(requests)
                return await inner(taken if takes_stream else await _only(taken, self._idle_s), context)

        return handle

    def _streaming(self, inner: Any, takes_stream: bool, method: str, metadata: Metadata) -> Any:
        async def handle(requests: AsyncIterator[Sized], context: Context) -> AsyncIterator[Any]:
            async with self._admitted(method, metadata, context) as held:
                taken = held.one_by_one(requests) if takes_stream else held.all_of(requests)
                given = taken if takes_stream else await _only(taken, self._idle_s)
                async for response in inner(given, context):
                    yield response

        return handle

    def _absent(self, metadata: Metadata) -> Any:
        """Who is known may learn that there is no such call."""

        async def handle(_: AsyncIterator[bytes], context: Context) -> bytes:
            async with self._admitted("", metadata, context):
                raise Unsupported("this version does not serve that call", reason="UNIMPLEMENTED")

        return handle

    @asynccontextmanager
    async def _admitted(self, method: str, metadata: Metadata, context: Context) -> AsyncIterator[_Held]:
        try:
            caller = await self._known(method, metadata, context)
            with _holding(self._limits, self.receiving, caller) as held:
                yield held
        except NearcaseError as error:  # ours: what the handler raised has become a status behind us
            if self.on_refused:
                self.on_refused(method, error, context)
            await abort(context, error)
        except grpc.aio.AbortError:
            raise
        except Exception as error:  # grpc would tell its text to the caller
            log.error("the gate failed with %s", type(error).__name__)
            await abort(context, NearcaseError("internal error; the server's log has its place"))

    async def _known(self, method: str, metadata: Metadata, context: Context) -> Caller:
        try:
            caller = await self._knows.caller(metadata, context)
        except NotAllowed as error:
            self._refusals.tell(method, str(error), context)
            raise NotAllowed(STRANGER, reason="UNAUTHENTICATED") from None
        enter(caller)
        if self._limits:
            self._limits.enter(caller)
        if (
            not self._is_open
        ):  # after the caller is known and counted: naming another's tenant is the caller's own doing
            no_tenant(metadata, because="whose cases are asked for follows from who asks")
        if not self._is_open and method and not may(caller.roles, method):
            self._refusals.tell(method, "the caller has no role for it", context)
            raise NotAllowed("the roles of this caller do not allow this call", reason="ROLE")
        return caller


STRANGER = "expected a token or a certificate that this server knows and that is valid now"
"""All that a stranger learns, whatever was wrong."""


class Sized(NamedTuple):
    """A message with its length on the wire."""

    message: Any
    size: int


def sized(read: Callable[[bytes], Any] | None) -> Callable[[bytes], Sized]:
    """Returns a reader that tells the length as well."""
    return lambda data: Sized(read(data) if read else data, len(data))


async def _only(taken: AsyncIterator[Any], idle_s: float) -> Any:
    """A client may open a call and send nothing; keepalive finds nothing wrong with it.

    Nor can a message be seen to grow, so that one that grows steadily has no longer than one of which nothing comes.
    """
    try:
        async with asyncio.timeout(idle_s):
            async for message in taken:
                return message
    except TimeoutError:
        message = f"the message was not whole after {idle_s:g} s, so the call was ended"
        raise Overloaded(message, reason="IDLE_STREAM") from None
    raise InvalidInput("expected a message, got none", reason="MALFORMED_MESSAGE")


class _Held:
    """The bytes of one call's messages, counted while the server has them."""

    def __init__(self, limits: Limits | None, receiving: Receiving, caller: Caller) -> None:
        self._limits, self._receiving, self._caller = limits, receiving, caller
        self._size = 0

    async def all_of(self, requests: AsyncIterator[Sized]) -> AsyncIterator[Any]:
        """Each message, counted until the call ends: the answer is made of all of them."""
        async for message, size in self._receiving.each(requests, self._caller):
            self.take(size)
            yield message

    async def one_by_one(self, requests: AsyncIterator[Sized]) -> AsyncIterator[Any]:
        """Each message, counted until the next is asked for, since each is answered by itself."""
        async for message, size in requests:
            self.take(size)
            yield message
            self.drop()

    def take(self, size: int) -> None:
        """Counts them; raises Overloaded where the caller has too many."""
        if self._limits:
            self._limits.hold(self._caller, size)
            self._size += size

    def drop(self) -> None:
        """Counts none of them any more."""
        if self._limits:
            self._limits.drop(self._caller, self._size)
        self._size = 0


@contextmanager
def _holding(limits: Limits | None, receiving: Receiving, caller: Caller) -> Iterator[_Held]:
    held = _Held(limits, receiving, caller)
    try:
        yield held
    finally:
        held.drop()


class _Refusals:
    """Says in the log who was refused: one line a second at most, so that strangers can not fill the disk."""

    def __init__(self, clock: Clock) -> None:
        self._clock, self._next_s, self._more = clock, float("-inf"), 0

    def tell(self, method: str, why: str, context: Context) -> None:
        """Logs one refusal; the method only if it is one of ours, since a stranger may have written anything."""
        now_s = self._clock.monotonic_s()
        if now_s < self._next_s:
            self._more += 1
            return
        name = method if method in NEEDED else "an unknown call"
        more = f" ({self._more} more since the last such line)" if self._more else ""
        log.warning("refused %s from %s: %s%s", name, context.peer(), why, more)
        self._next_s, self._more = now_s + 1.0, 0
