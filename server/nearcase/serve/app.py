"""The only place that builds things: settings -> parts -> a gRPC server that starts, drains and stops."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from nearcase.clock import SystemClock
from nearcase.decide.findings import read_findings
from nearcase.encode.batcher import Batcher
from nearcase.encode.card import default_encoder_folder
from nearcase.encode.runtime import open_encoder
from nearcase.errors import InvalidInput, Unready
from nearcase.index.opening import open_index
from nearcase.intake.sandbox import Sandbox
from nearcase.prepare import Preparer, prepare_job
from nearcase.retrieve.library import Library
from nearcase.serve.decision_service import DecisionService
from nearcase.serve.encoder_service import EncoderService
from nearcase.serve.engine import Engine
from nearcase.serve.findings import Declared, Findings
from nearcase.serve.health import SERVICES, Health
from nearcase.serve.interceptor import ErrorInterceptor
from nearcase.serve.library_service import LibraryService
from nearcase.serve.privacy import Privacy, open_privacy
from nearcase.serve.records import Records
from nearcase.serve.search_service import SearchService
from nearcase.serve.uploads import Uploads
from nearcase.settings import Settings
from nearcase.v1 import decision_pb2_grpc, encoder_pb2_grpc, library_pb2_grpc, search_pb2_grpc

if TYPE_CHECKING:
    from nearcase.encode.base import Encoder
    from nearcase.index.base import Index

MAX_BATCH = 1  # on a CPU a batch was measured to gain nothing
UPLOADS_OVER_LARGEST = 4


@dataclass(frozen=True, slots=True)
class App:
    """A running server."""

    address: str
    engine: Engine
    health: Health
    interceptor: ErrorInterceptor
    server: grpc.aio.Server

    async def stop(self) -> None:
        """Refuses new requests, lets those in progress finish, then closes the parts in the order of the flow."""
        await self.health.stop()
        await self.server.stop(self.engine.settings.drain_s)
        await self.engine.batcher.close()
        await self.engine.library.close()
        await asyncio.to_thread(self.engine.preparer.close)


async def start(settings: Settings) -> App:
    """Returns the server once it answers.

    Raises:
        InvalidInput: The key of a de-identified library is unfit, or a finding's file is wrong.
        Unready: The encoder, the library or the address can not be had; nothing is left running.
    """
    privacy = await asyncio.to_thread(open_privacy, settings)
    declared = await asyncio.to_thread(_findings, settings)
    encoder = await asyncio.to_thread(open_encoder, settings.encoder or default_encoder_folder())
    index = await open_index(
        settings.data / "library",
        dimension=encoder.card.dimension,
        encoder_identity=encoder.card.identity,
        pseudonym_check=privacy.check_value,
    )
    engine = _build(settings, encoder, index, privacy, declared)
    try:
        await asyncio.to_thread(engine.preparer.wait_ready)
        engine.library.start()
        engine.batcher.start()
        return await _listen(engine)
    except BaseException:
        await engine.library.close()
        await asyncio.to_thread(engine.preparer.close)
        raise


def _findings(settings: Settings) -> Declared:
    folder = settings.findings
    if folder is not None and not folder.is_dir():
        raise InvalidInput(f"setting findings is {str(folder)!r}, expected a folder", field="findings")
    return read_findings(folder) if folder else {}


def _build(settings: Settings, encoder: Encoder, index: Index, privacy: Privacy, declared: Declared) -> Engine:
    clock, workers = SystemClock(), settings.decode_worker_count
    library = Library(index, clock)
    sandbox = Sandbox(
        prepare_job, workers=workers, wall_s=settings.decode_wall_s, memory_bytes=settings.decode_memory_bytes
    )
    lanes = os.cpu_count() or 1
    return Engine(
        settings=settings,
        clock=clock,
        card=encoder.card,
        summary=encoder.card.summary(encoder.runtime),
        preparer=Preparer(sandbox, encoder.card.recipe, workers=workers, max_waiting=settings.max_waiting),
        batcher=Batcher(encoder, clock, max_batch=MAX_BATCH, lanes=lanes, max_waiting=settings.max_waiting),
        index=index,
        library=library,
        privacy=privacy,
        findings=Findings(declared, library),
        records=Records(settings.records_folder),
    )


async def _listen(engine: Engine) -> App:
    settings = engine.settings
    interceptor = ErrorInterceptor(settings.max_concurrent_requests, settings.max_adding_streams)
    health = Health(engine)
    server = grpc.aio.server(interceptors=[interceptor], options=_options(settings))
    most = UPLOADS_OVER_LARGEST * settings.max_image_bytes
    uploads = Uploads(settings.data / "uploads", max_bytes=most, in_memory=engine.privacy.is_on)
    search_pb2_grpc.add_SearchServiceServicer_to_server(SearchService(engine), server)
    decision_pb2_grpc.add_DecisionServiceServicer_to_server(DecisionService(engine), server)
    library_pb2_grpc.add_LibraryServiceServicer_to_server(LibraryService(engine, uploads), server)
    encoder_pb2_grpc.add_EncoderServiceServicer_to_server(EncoderService(engine), server)
    health_pb2_grpc.add_HealthServicer_to_server(health.servicer, server)
    if settings.reflection:
        reflection.enable_server_reflection((*SERVICES, "grpc.health.v1.Health", reflection.SERVICE_NAME), server)
    host = settings.listen.rpartition(":")[0]
    try:
        port = server.add_insecure_port(settings.listen)
    except RuntimeError:
        why = "another server is there, or it is no address of this machine"
        raise Unready(f"can not listen on {settings.listen}: {why}", reason="ADDRESS") from None
    await server.start()
    await health.start()
    return App(f"{host}:{port}", engine, health, interceptor, server)


def _options(settings: Settings) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.max_send_message_length", settings.max_message_bytes),
        ("grpc.so_reuseport", 0),  # a second server on the port must fail, not share it
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ]


async def serve(settings: Settings, announce: Callable[[App], None]) -> None:
    """Starts, announces, and runs until SIGTERM or SIGINT; a second signal does not cut the drain short."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    app = await start(settings)
    announce(app)
    await stop.wait()
    await app.stop()
