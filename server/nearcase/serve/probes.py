"""What strangers may ask, which is health; and a port for probes, which serves that alone.

The port has neither encryption nor callers, since a kubelet has no certificate. It answers Check of grpc.health.v1 with
the same states as the server's own port, and nothing else: whoever reaches it learns whether the server is ready. It
does not serve Watch, whose streams would have no end.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from nearcase.errors import Unready
from nearcase.serve.health import SERVICES

if TYPE_CHECKING:
    from grpc_health.v1.health import aio as health_aio

    from nearcase.serve.context import Context

MAX_QUESTION_BYTES = 4096
"""The name of a service is shorter; the port takes nothing larger from strangers."""
MAX_AT_ONCE = 64
"""Questions at once; a probe asks one."""
OPEN_AT_ONCE = 8
"""The same on the server's own port, where grpc takes in `max_message_bytes` of each before it is whole."""
MAX_WATCHES = 1000
"""Streams of Watch there; clients that balance by themselves have one each, and ask again when it ends."""
QUESTION_S = 5.0
"""For a whole question; a probe sends it in one breath."""


class ProbePort:
    """The second port; off where there is no address."""

    def __init__(self) -> None:
        self._server: grpc.aio.Server | None = None
        self.address = ""

    async def start(self, address: str, servicer: health_aio.HealthServicer) -> None:
        """Listens on HOST:PORT, where one is given; port 0 takes a free one.

        Raises:
            Unready: The address can not be had.
        """
        if not address:
            return
        options = [
            ("grpc.max_receive_message_length", MAX_QUESTION_BYTES),
            ("grpc.max_concurrent_streams", MAX_AT_ONCE),
            ("grpc.so_reuseport", 0),
        ]
        server = grpc.aio.server(options=options)
        server.add_generic_rpc_handlers((health_calls(servicer, OpenCalls(MAX_AT_ONCE)),))
        try:
            port = server.add_insecure_port(address)
        except RuntimeError:
            why = "another server is there, or it is no address of this machine"
            raise Unready(f"can not answer probes on {address}: {why}", reason="ADDRESS") from None
        await server.start()
        self._server, self.address = server, f"{address.rpartition(':')[0]}:{port}"

    async def stop(self) -> None:
        """Closes the port, after the servicer said NOT_SERVING."""
        if self._server is not None:
            await self._server.stop(0)
            self._server = None


class OpenCalls:
    """Calls that strangers have open; one too many ends the oldest, so that half a question keeps no probe out.

    Args:
        most: At once.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._open: dict[asyncio.Timeout, None] = {}

    @asynccontextmanager
    async def one(self, time_s: float | None) -> AsyncIterator[None]:
        """Holds one; raises TimeoutError when its time is over, or it is the oldest of too many."""
        async with asyncio.timeout(time_s) as limit:
            self._open[limit] = None
            if len(self._open) > self._most:
                oldest = next(iter(self._open))
                del self._open[oldest]
                if not oldest.expired():
                    oldest.reschedule(0.0)
            try:
                yield
            finally:
                self._open.pop(limit, None)


def health_calls(
    servicer: health_aio.HealthServicer, questions: OpenCalls, watches: OpenCalls | None = None
) -> grpc.GenericRpcHandler:
    """Returns Check, and Watch where it is served.

    Each is a stream of one: its message is then taken in here, where time and number of such calls are limited. How
    large it is can be seen only once it is whole.
    """

    async def check(requests: AsyncIterator[Any], context: Context) -> Any:
        return await servicer.Check(await _whole(questions, requests, context), cast(Any, context))

    async def watch(requests: AsyncIterator[Any], context: Context) -> None:
        question = await _whole(questions, requests, context)
        try:
            async with cast(OpenCalls, watches).one(None):
                await servicer.Watch(question, cast(Any, context))
        except TimeoutError:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many others watch; try again later")

    read, write = health_pb2.HealthCheckRequest.FromString, health_pb2.HealthCheckResponse.SerializeToString
    handlers = {"Check": grpc.stream_unary_rpc_method_handler(cast(Any, check), read, write)}
    if watches:
        handlers["Watch"] = grpc.stream_stream_rpc_method_handler(cast(Any, watch), read, write)
    return grpc.method_handlers_generic_handler("grpc.health.v1.Health", handlers)


async def _whole(questions: OpenCalls, requests: AsyncIterator[Any], context: Context) -> Any:
    """Returns the question, or ends the call where it does not come."""
    try:
        async with questions.one(QUESTION_S):
            question = await anext(aiter(requests), None)
    except TimeoutError:
        await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "the question did not come in time")
    if question is None:
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "expected a question, got none")
    if question.ByteSize() > MAX_QUESTION_BYTES:
        message = f"expected a question of at most {MAX_QUESTION_BYTES} bytes"
        await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, message)
    return question


def ask(address: str, *, timeout_s: float) -> dict[str, bool]:
    """Returns each service of the server behind a port for probes, with whether it is ready.

    Raises:
        Unready: Nobody answers there in time.
    """
    with grpc.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            grpc.channel_ready_future(channel).result(timeout=timeout_s)
            answers = {
                name: stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=timeout_s) for name in SERVICES
            }
        except (grpc.FutureTimeoutError, grpc.RpcError) as error:
            raise Unready(f"{address} does not tell its health within {timeout_s:g} s") from error
    return {name: answer.status == health_pb2.HealthCheckResponse.SERVING for name, answer in answers.items()}
