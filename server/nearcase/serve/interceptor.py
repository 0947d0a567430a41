"""The one place where errors become gRPC statuses; anything unforeseen is INTERNAL and is logged without its message.

A request also gets its place here: more than the settings allow at once are refused before their handlers start.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NoReturn, cast

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc import code_pb2, error_details_pb2, status_pb2

from nearcase.errors import InvalidInput, NearcaseError, Overloaded, Unready
from nearcase.serve.context import Context, Handler

log = logging.getLogger(__name__)
RETRY_AFTER_S = 1


class ErrorInterceptor(grpc.aio.ServerInterceptor):
    """Translates NearcaseError to its code with google.rpc details, and limits requests in progress."""

    def __init__(self, max_concurrent: int) -> None:
        self._max_concurrent = max_concurrent
        self.in_progress = 0

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
        if handler.response_streaming:
            return grpc.stream_stream_rpc_method_handler(
                self._streaming(cast(Any, handler.stream_stream), method),
                handler.request_deserializer,
                handler.response_serializer,
            )
        make = (
            grpc.stream_unary_rpc_method_handler if handler.request_streaming else grpc.unary_unary_rpc_method_handler
        )
        call = handler.stream_unary if handler.request_streaming else handler.unary_unary
        return make(self._unary(cast(Any, call), method), handler.request_deserializer, handler.response_serializer)

    def _unary(self, call: Callable[[Any, Context], Awaitable[Any]], method: str) -> Any:
        async def handle(request: Any, context: Context) -> Any:
            async with _Place(self, context, method):
                return await call(request, context)

        return handle

    def _streaming(self, call: Callable[[Any, Context], AsyncIterator[Any]], method: str) -> Any:
        async def handle(requests: Any, context: Context) -> AsyncIterator[Any]:
            async with _Place(self, context, method):
                async for response in call(requests, context):
                    yield response

        return handle

    def enter(self) -> None:
        """Takes a place; raises Overloaded when there is none."""
        if self.in_progress >= self._max_concurrent:
            raise Overloaded(
                f"{self._max_concurrent} requests are in progress; try again later", reason="TOO_MANY_REQUESTS"
            )
        self.in_progress += 1

    def leave(self) -> None:
        """Gives the place back."""
        self.in_progress -= 1


class _Place:
    """One request's place: taken on entry, given back on exit, whatever happens; errors become statuses."""

    def __init__(self, owner: ErrorInterceptor, context: Context, method: str) -> None:
        self._owner, self._context, self._method = owner, context, method

    async def __aenter__(self) -> None:
        try:
            self._owner.enter()
        except Overloaded as error:
            await abort(self._context, error)

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        self._owner.leave()
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
    await context.abort(error.code, str(error), (details, ("nearcase-reason", error.reason)))
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
    return status_pb2.Status(code=code_pb2.Code.Value(error.code.name), message=str(error), details=packed)


def _where(error: BaseException) -> str:
    """File and line of the innermost frame; never the message, which may hold patient data."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else "?"
