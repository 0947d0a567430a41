"""grpc.health.v1: a service is SERVING while its parts answer, not while its process is up."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from grpc_health.v1 import health_pb2
from grpc_health.v1.health import aio as health_aio

from nearcase.errors import NearcaseError

if TYPE_CHECKING:
    from nearcase.serve.engine import Engine

SERVICES = (
    "nearcase.v1.SearchService",
    "nearcase.v1.DecisionService",
    "nearcase.v1.LibraryService",
    "nearcase.v1.EncoderService",
)
NEEDS_INDEX = SERVICES[:3]
CHECK_EVERY_S = 2.0
log = logging.getLogger(__name__)


class Health:
    """Keeps the health servicer true: "" is liveness, each service is readiness."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.servicer = health_aio.HealthServicer()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Says SERVING where that is true now, and goes on checking."""
        await self.servicer.set("", health_pb2.HealthCheckResponse.SERVING)
        await self._check()
        self._task = asyncio.get_running_loop().create_task(self._watch(), name="health")

    async def stop(self) -> None:
        """Says NOT_SERVING for good, so that balancers send no more."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self.servicer.enter_graceful_shutdown()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(CHECK_EVERY_S)
            await self._check()

    async def _check(self) -> None:
        is_up = await self._index_answers()
        for service in SERVICES:
            serving = is_up or service not in NEEDS_INDEX
            status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
            await self.servicer.set(service, status)

    async def _index_answers(self) -> bool:
        try:
            async with asyncio.timeout(CHECK_EVERY_S):
                await self._engine.index.get([])
        except (NearcaseError, TimeoutError) as error:
            log.warning("the index does not answer: %s", type(error).__name__)
            return False
        return True
