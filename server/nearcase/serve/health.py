"""grpc.health.v1: a service is SERVING while its parts answer, not while its process is up."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from grpc_health.v1 import health_pb2
from grpc_health.v1.health import aio as health_aio

from nearcase.errors import NearcaseError
from nearcase.serve.canary import ENCODER, INDEX, Canary

if TYPE_CHECKING:
    from nearcase.index.base import IndexState
    from nearcase.serve.engine import Engine

SERVICES = (
    "nearcase.v1.SearchService",
    "nearcase.v1.DecisionService",
    "nearcase.v1.LibraryService",
    "nearcase.v1.EncoderService",
)
NEEDS_INDEX, NEEDS_ENCODER = SERVICES[:3], SERVICES
RECALL = "nearcase.recall"
"""A name for monitoring alone: NOT_SERVING says that searches miss neighbours, while the services go on."""

CHECK_EVERY_S = 2.0
_Status = health_pb2.HealthCheckResponse
log = logging.getLogger(__name__)


class Health:
    """Keeps the health servicer true: "" is liveness, each service is readiness.

    Args:
        engine: The parts that are asked.
        canary: Tells of the encoder and of the whole way.
    """

    def __init__(self, engine: Engine, canary: Canary) -> None:
        self._engine, self.canary = engine, canary
        self.servicer = health_aio.HealthServicer()
        self._tasks: list[asyncio.Task[None]] = []
        self._index_answers = False
        self.serving: dict[str, bool] = dict.fromkeys(SERVICES, False)
        self.index: IndexState | None = None  # as it was when it last answered
        self.is_draining = False
        self.revived_count = 0

    async def start(self) -> None:
        """Says SERVING where that is true now, and goes on checking."""
        await self.canary.fly()
        await self._check()
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(self._watch(), name="health"),
            loop.create_task(self.canary.watch(self._tell), name="canary"),
        ]

    async def stop(self) -> None:
        """Says NOT_SERVING for good, so that balancers send no more."""
        self.is_draining = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.serving = dict.fromkeys(SERVICES, False)
        await self.servicer.enter_graceful_shutdown()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(CHECK_EVERY_S)
            await self._check()

    async def _check(self) -> None:
        self._revive()
        self._index_answers = await self._ask_index()
        await self._tell()

    async def _tell(self) -> None:
        has_index = self._index_answers and self.canary.broken != INDEX
        has_encoder = self.canary.broken != ENCODER
        has_trail = self._engine.audit is None or not self._engine.audit.problem
        for service in SERVICES:
            is_serving = (has_index or service not in NEEDS_INDEX) and (has_encoder or service not in NEEDS_ENCODER)
            is_serving = is_serving and has_trail  # without it every answer is held back
            self.serving[service] = is_serving
            await self.servicer.set(service, _Status.SERVING if is_serving else _Status.NOT_SERVING)
        await self.servicer.set("", _Status.NOT_SERVING if self.canary.is_stuck else _Status.SERVING)
        await self.servicer.set(RECALL, self._recall())

    def _recall(self) -> health_pb2.HealthCheckResponse.ServingStatus:
        recall = self._engine.recall
        if recall.last is None:
            return _Status.UNKNOWN
        return _Status.NOT_SERVING if recall.is_low else _Status.SERVING

    def _revive(self) -> None:
        """The owner of the encoder's queue ends by a mistake in it only; then nothing is taken from it any more."""
        if not self._engine.batcher.is_alive:
            log.error("the encoder's queue had no owner any more; it has a new one")
            self.revived_count += 1
            self._engine.batcher.start()

    async def _ask_index(self) -> bool:
        """Asks for its state as well, where it answers: whoever watches wants numbers, not another question."""
        index = self._engine.tenants.index
        try:
            async with asyncio.timeout(CHECK_EVERY_S):
                await index.get([])
        except (NearcaseError, TimeoutError) as error:
            log.warning("the index does not answer: %s", type(error).__name__)
            return False
        try:
            async with asyncio.timeout(CHECK_EVERY_S):
                found = await index.state()
            if found.problem and (self.index is None or found.problem != self.index.problem):
                log.warning("a part of the index can not be sealed or rewritten: %s", found.problem)
            self.index = found
        except (NearcaseError, TimeoutError):
            pass  # the last one known stays
        return True
