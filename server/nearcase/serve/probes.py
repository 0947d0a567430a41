"""A port for probes: health alone, without encryption and without callers, since a kubelet has no certificate.

It answers Check of grpc.health.v1 with the same states as the server's own port, and nothing else: whoever reaches it
learns whether the server is ready. It does not serve Watch, whose streams would have no end.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
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
        server.add_generic_rpc_handlers((_checks(servicer),))
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


class _Questions:
    """Those that are being asked; one too many ends the oldest, so that half a question keeps no probe out."""

    def __init__(self) -> None:
        self._asked: dict[asyncio.Timeout, None] = {}

    async def whole(self, requests: AsyncIterator[Any], context: Context) -> Any:
        """Returns the question, or ends the call where it does not come."""
        try:
            async with asyncio.timeout(QUESTION_S) as limit:
                self._asked[limit] = None
                if len(self._asked) > MAX_AT_ONCE:
                    oldest = next(iter(self._asked))
                    del self._asked[oldest]
                    if not oldest.expired():
                        oldest.reschedule(0.0)
                try:
                    async for request in requests:
                        return request
                finally:
                    self._asked.pop(limit, None)
        except TimeoutError:
            await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "the question did not come in time")
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "expected a question, got none")


def _checks(servicer: health_aio.HealthServicer) -> grpc.GenericRpcHandler:
    """Check alone, as a stream of one: its message is then taken in here, where the time for it is limited."""
    questions = _Questions()

    async def check(requests: AsyncIterator[Any], context: Context) -> Any:
        return await servicer.Check(await questions.whole(requests, context), cast(Any, context))

    handler = grpc.stream_unary_rpc_method_handler(
        cast(Any, check), health_pb2.HealthCheckRequest.FromString, health_pb2.HealthCheckResponse.SerializeToString
    )
    return grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": handler})


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
