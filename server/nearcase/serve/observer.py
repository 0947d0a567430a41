"""Counts every request and times it, whoever ends it: the gate, the limits, the handler or the caller.

The bytes of requests are counted here too, and refused where there are too many: the gate behind asks for each message
only once it knows the caller. Streams of images to add count theirs where they work them off.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import grpc

from nearcase.serve.caller import current
from nearcase.serve.context import Context, Handler
from nearcase.serve.gate import Sized, sized
from nearcase.serve.interceptor import abort
from nearcase.serve.logs import hashed
from nearcase.serve.roles import NEEDED
from nearcase.serve.trail import Trail, begin

if TYPE_CHECKING:
    from nearcase.clock import Clock
    from nearcase.serve.caller import Metadata
    from nearcase.serve.flight import Flight, Hold
    from nearcase.serve.line import Line
    from nearcase.serve.metrics import Metrics
    from nearcase.serve.tracing import Tracing

_REFUSALS = ("RESOURCE_EXHAUSTED", "UNAUTHENTICATED", "PERMISSION_DENIED")
_OURS = "/nearcase."
BULK = ("v1.LibraryService/AddImages", "v1.LibraryService/ImportCases")

IN_LINE = (
    "v1.SearchService/Search",
    "v1.SearchService/SearchStream",
    "v1.DecisionService/Decide",
    "v1.DecisionService/DecideStream",
    "v1.EncoderService/EmbedImages",
)
"""Calls whose handlers wait in the line."""

STREAMS = (*BULK, "v1.LibraryService/ExportCases")
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ended:
    """A request that ended; times on the monotonic clock."""

    rpc: str
    code: str
    start_s: float
    end_s: float

    @property
    def took_ms(self) -> float:
        """From its headers to its end."""
        return (self.end_s - self.start_s) * 1e3


class Observer(grpc.aio.ServerInterceptor):
    """The outermost interceptor.

    Args:
        metrics: Where it counts.
        clock: For durations.
        flight: Room for the bytes of all requests.
        line: The line before searches: who would be refused there is refused here, before the body is read.
        tracing: Where spans go; None sends none.
        slow_ms: A request that takes longer has a line in the log; 0 logs none. Streams of cases may take days.
    """

    def __init__(
        self,
        metrics: Metrics,
        clock: Clock,
        flight: Flight,
        line: Line,
        tracing: Tracing | None = None,
        slow_ms: float = 0.0,
    ) -> None:
        self._metrics, self._clock, self._flight, self._line = metrics, clock, flight, line
        self._tracing, self._slow_ms = tracing, slow_ms

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Wraps every handler of ours; strangers' names of calls are one name."""
        method = handler_call_details.method
        if method.removeprefix(_OURS) in IN_LINE and self._line.is_full:
            return self._refusing(method.removeprefix(_OURS))
        handler = await continuation(handler_call_details)
        if handler is None or not method.startswith(_OURS):
            return handler
        rpc, call = method.removeprefix(_OURS) if method in NEEDED else "unknown", cast(Any, handler)
        read, write = sized(call.request_deserializer), call.response_serializer
        if call.response_streaming:  # behind the gate all calls take a stream
            streamed = self._streaming(call.stream_stream, rpc, is_bulk=rpc in BULK)
            return grpc.stream_stream_rpc_method_handler(streamed, read, write)
        return grpc.stream_unary_rpc_method_handler(self._answering(call.stream_unary, rpc), read, write)

    def _answering(self, inner: Any, rpc: str) -> Any:
        async def handle(requests: AsyncIterator[Sized], context: Context) -> Any:
            arrival = self._line.arrival() if rpc in IN_LINE else nullcontext()
            with self._watched(rpc, context), self._flight.hold() as held, arrival:
                return await inner(_counted(requests, held), context)

        return handle

    def _streaming(self, inner: Any, rpc: str, *, is_bulk: bool) -> Any:
        async def handle(requests: AsyncIterator[Sized], context: Context) -> AsyncIterator[Any]:
            with self._watched(rpc, context), self._flight.hold() as held:
                async for response in inner(_counted(requests, None if is_bulk else held), context):
                    yield response

        return handle

    def _refusing(self, rpc: str) -> Handler:
        """Refuses before the message is read and before anything else is done: in an overload most calls end here."""

        async def handle(_: AsyncIterator[bytes], context: Context) -> None:
            with self._watched(rpc, context):
                await abort(context, self._line.refuse())

        return grpc.stream_unary_rpc_method_handler(handle)

    @contextmanager
    def _watched(self, rpc: str, context: Context) -> Iterator[None]:
        start_s, trail = self._clock.monotonic_s(), begin()
        error: BaseException | None = None
        try:
            yield
        except BaseException as raised:
            error = raised
            raise
        finally:
            ended = Ended(rpc, _code(context, error), start_s, self._clock.monotonic_s())
            self._count(ended, context)
            if self._tracing:
                self._tracing.tell(ended, trail, cast("Metadata", context.invocation_metadata() or ()))
            if 0 < self._slow_ms < ended.took_ms and rpc not in STREAMS:
                _tell_slow(ended, trail)

    def _count(self, ended: Ended, context: Context) -> None:
        self._metrics.requests.labels(ended.rpc, ended.code).inc()
        self._metrics.request_seconds.labels(ended.rpc).observe(ended.took_ms / 1e3)
        if ended.code in _REFUSALS:
            self._metrics.refused.labels(_reason(context)).inc()


def _tell_slow(ended: Ended, trail: Trail) -> None:
    stages = {name: round(taken) for name, taken in trail.sums_ms().items()}
    caller = current()
    told = {"rpc": ended.rpc, "code": ended.code, "took_ms": round(ended.took_ms), "stages_ms": stages}
    who = {"caller": hashed(caller.name), "tenant": hashed(caller.tenant)}
    message = "slow request: %s ended with %s after %d ms (%s)%s"
    whose = "".join(f", {name} {value}" for name, value in who.items() if value)  # for lines of text
    steps = ", ".join(f"{name} {taken}" for name, taken in stages.items()) or "no stage"
    log.warning(message, ended.rpc, ended.code, told["took_ms"], steps, whose, extra={"fields": told | who})


async def _counted(requests: AsyncIterator[Sized], held: Hold | None) -> AsyncIterator[Any]:
    async for message, size in requests:
        if held is not None:
            held.take(size)
        yield message


def _code(context: Context, error: BaseException | None) -> str:
    code = cast(object, context.code())  # the stubs say int
    if isinstance(code, grpc.StatusCode):
        return code.name
    if isinstance(error, (asyncio.CancelledError, GeneratorExit)):
        return "CANCELLED"  # the caller went away, or its deadline passed
    return "UNKNOWN" if error else "OK"


def _reason(context: Context) -> str:
    """The reason that the refusal gave; a word of ours from a short list."""
    given = [value for key, value in context.trailing_metadata() or () if key == "nearcase-reason"]
    return str(given[0]) if given else "OTHER"
