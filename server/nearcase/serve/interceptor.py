"""The one place where errors become gRPC statuses; anything unforeseen is INTERNAL and is logged without its message.

A request also gets its place here: more than the settings allow at once are refused before their handlers start.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, NoReturn, cast

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError
from google.rpc import code_pb2, error_details_pb2, status_pb2

from nearcase.errors import InvalidInput, NearcaseError, Overloaded, Unready
from nearcase.serve.caller import check_valid, current
from nearcase.serve.context import Context, Handler
from nearcase.serve.places import Places

if TYPE_CHECKING:
    from nearcase.clock import Clock

log = logging.getLogger(__name__)
RETRY_AFTER_S = 1


class ErrorInterceptor(grpc.aio.ServerInterceptor):
    """Translates NearcaseError to its code with google.rpc details, and limits what is in progress.

    Streams of images to add have places of their own: they may idle for long, and must not keep searches out.

    Args:
        max_requests: Requests in progress.
        max_streams: Adding streams in progress.
        clock: Ends a stream whose caller's token or certificate has expired.
        knows_callers: Each caller may have half of the places; where callers can not be told apart, all.
        are_refused: Whether requests were refused lately before their callers were known.
    """

    def __init__(
        self,
        max_requests: int,
        max_streams: int,
        clock: Clock,
        *,
        knows_callers: bool,
        are_refused: Callable[[], bool],
    ) -> None:
        self.requests = Places(max_requests, "requests", clock, is_shared=knows_callers, are_refused=are_refused)
        # A stream may stay for hours: what was lent would not come back.
        self.streams = Places(max_streams, "adding streams", clock, is_shared=knows_callers)
        self._clock = clock

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Wraps the handler; health checks are never refused for load."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or not method.startswith("/nearcase."):
            return handler
        read = _tolerant(cast(Any, handler.request_deserializer))
        if handler.response_streaming and not handler.request_streaming:
            streamed = self._yielding(cast(Any, handler.unary_stream), method)
            return grpc.unary_stream_rpc_method_handler(streamed, read, handler.response_serializer)
        if handler.response_streaming:
            call = self._streaming(cast(Any, handler.stream_stream), method)
            return grpc.stream_stream_rpc_method_handler(call, read, handler.response_serializer)
        if handler.request_streaming:
            gathered = self._gathering(cast(Any, handler.stream_unary), method)
            return grpc.stream_unary_rpc_method_handler(gathered, read, handler.response_serializer)
        answered = self._unary(cast(Any, handler.unary_unary), method)
        return grpc.unary_unary_rpc_method_handler(answered, read, handler.response_serializer)

    def _unary(self, call: Callable[[Any, Context], Awaitable[Any]], method: str) -> Any:
        async def handle(request: Any, context: Context) -> Any:
            async with _Place(self.requests, context, method):
                return await call(_whole(request), context)

        return handle

    def _gathering(self, call: Callable[[Any, Context], Awaitable[Any]], method: str) -> Any:
        async def handle(requests: AsyncIterator[Any], context: Context) -> Any:
            async with _Place(self.requests, context, method):
                return await call(self._each_in_place(requests), context)

        return handle

    def _streaming(self, call: Callable[[Any, Context], AsyncIterator[Any]], method: str) -> Any:
        async def handle(requests: AsyncIterator[Any], context: Context) -> AsyncIterator[Any]:
            async with _Place(self.streams, context, method):
                async for response in call(self._each_whole(requests), context):
                    yield response

        return handle

    def _yielding(self, call: Callable[[Any, Context], AsyncIterator[Any]], method: str) -> Any:
        async def handle(request: Any, context: Context) -> AsyncIterator[Any]:
            place = _Place(self.streams, context, method)
            async with place, aclosing(cast(Any, call(_whole(request), context))) as responses:
                async for response in responses:
                    check_valid(self._clock.now_s())
                    yield response

        return handle

    async def _each_in_place(self, requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async for request in self._each_whole(requests):
            self.requests.check(current())
            yield request

    async def _each_whole(self, requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
        """Who was let in may not go on for ever: a token or certificate may expire while its stream is open."""
        async for request in requests:
            check_valid(self._clock.now_s())
            yield _whole(request)


def _tolerant(read: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """Reads a message, or returns None for bytes that are none, so that the refusal has its code and reason."""

    def reading(data: bytes) -> Any:
        try:
            return read(data)
        except DecodeError:
            return None

    return reading


def _whole(request: Any) -> Any:
    if request is None:
        raise InvalidInput("these bytes are no message of this API", reason="MALFORMED_MESSAGE")
    return request


class _Place:
    """One request's place: taken on entry, given back on exit, whatever happens; errors become statuses."""

    def __init__(self, places: Places, context: Context, method: str) -> None:
        self._places, self._context, self._method = places, context, method
        self._caller = current()

    async def __aenter__(self) -> None:
        try:
            self._places.enter(self._caller)
        except Overloaded as error:
            await abort(self._context, error)

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        self._places.leave(self._caller)
        if isinstance(error, NearcaseError):
            await abort(self._context, error)
        if isinstance(error, TimeoutError):
            await self._context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "the deadline passed before the work began")
        if isinstance(error, Exception) and not isinstance(error, grpc.aio.AbortError):
            log.error("%s failed with %s at %s", self._method, kind.__name__ if kind else "", _where(error))
            await abort(self._context, NearcaseError("internal error; the server's log has its place"))


async def abort(context: Context, error: NearcaseError) -> NoReturn:
    """Ends the call with the error's code, message and google.rpc details; the reason is plain metadata as well."""
    details = ("grpc-status-details-bin", to_status(error).SerializeToString())
    await context.abort(grpc.StatusCode[error.code], str(error), (details, ("nearcase-reason", error.reason)))
    raise AssertionError("abort returned")


def to_status(error: NearcaseError) -> status_pb2.Status:
    """Returns ErrorInfo always; BadRequest for input, RetryInfo for what may pass."""
    details: list[Any] = [error_details_pb2.ErrorInfo(reason=error.reason, domain="nearcase")]
    if isinstance(error, InvalidInput):
        violation = error_details_pb2.BadRequest.FieldViolation(field=error.field, description=str(error))
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    if isinstance(error, (Overloaded, Unready)):
        details.append(error_details_pb2.RetryInfo(retry_delay=Duration(seconds=RETRY_AFTER_S)))
    packed = [AnyMessage() for _ in details]
    for box, detail in zip(packed, details, strict=True):
        box.Pack(detail)
    return status_pb2.Status(code=code_pb2.Code.Value(error.code), message=str(error), details=packed)


def _where(error: BaseException) -> str:
    """File and line of the innermost frame; never the message, which may hold patient data."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else "?"
