"""The only place that builds things: settings -> parts -> a gRPC server that starts, drains and stops."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc
from grpc_reflection.v1alpha import reflection

from nearcase.audit.trail import AuditTrail, open_trail
from nearcase.clock import SystemClock
from nearcase.encode.batcher import Batcher
from nearcase.encode.buckets import BUCKETS
from nearcase.encode.card import default_encoder_folder
from nearcase.encode.onnx_cpu import CpuEncoder
from nearcase.encode.runtime import FallbackEncoder, RuntimeChoice, open_encoder
from nearcase.encode.text import open_text
from nearcase.errors import Unready
from nearcase.index.opening import open_tier
from nearcase.prepare import Preparer, prepare_sandbox
from nearcase.processors import processor_count
from nearcase.retrieve.erasures import Journal
from nearcase.serve.auditor import Auditor
from nearcase.serve.canary import Canary
from nearcase.serve.credentials import MAX_CONNECTION_MS
from nearcase.serve.decision_service import DecisionService
from nearcase.serve.encoder_service import EncoderService
from nearcase.serve.engine import Engine
from nearcase.serve.flight import Flight
from nearcase.serve.gauges import server_gauges
from nearcase.serve.health import SERVICES, Health
from nearcase.serve.housekeeping import Housekeeping
from nearcase.serve.interceptor import ErrorInterceptor
from nearcase.serve.library_service import LibraryService
from nearcase.serve.line import Line
from nearcase.serve.metrics import MetricsPort
from nearcase.serve.observer import Observer
from nearcase.serve.privacy import Privacy, open_privacy
from nearcase.serve.probes import MAX_WATCHES, OPEN_AT_ONCE, OpenCalls, ProbePort, health_calls
from nearcase.serve.recall import RecallWatch
from nearcase.serve.reload import Declarations, Reload
from nearcase.serve.search_service import SearchService
from nearcase.serve.security import Security, open_security
from nearcase.serve.tenants import Tenants
from nearcase.serve.texts import Texts
from nearcase.serve.tracing import Tracing
from nearcase.serve.uploads import Uploads
from nearcase.settings import Settings
from nearcase.v1 import decision_pb2_grpc, encoder_pb2_grpc, library_pb2_grpc, search_pb2_grpc

if TYPE_CHECKING:
    from nearcase.clock import Clock
    from nearcase.encode.base import Encoder, TextEncoder

CPU_BATCH, GPU_BATCH = 1, 32  # on a CPU a batch was measured to gain nothing
GPU_LANES = 2  # one call is made ready while the other runs
UPLOADS_OVER_LARGEST = 4
WINDOW_BYTES = 256 * 1024
"""Of each message, what grpc takes in before anybody asks for it; by itself it lets this grow to megabytes, which
in an overload is memory for requests that are refused unread. A message takes a round trip for each such piece."""
MAX_PENDING = 4096
"""Calls that grpc holds until the event loop takes them; it cancels more without a reason, by default from 1000 on."""


@dataclass(frozen=True, slots=True)
class App:
    """A running server."""

    address: str
    engine: Engine
    health: Health
    housekeeping: Housekeeping
    interceptor: ErrorInterceptor
    metrics: MetricsPort
    probes: ProbePort
    reload: Reload
    security: Security
    server: grpc.aio.Server
    tracing: Tracing | None = None
    auditor: Auditor | None = None

    async def stop(self) -> None:
        """Refuses new requests, lets those in progress finish, then closes the parts in the order of the flow."""
        await self.health.stop()
        await self.server.stop(self.engine.settings.drain_s)
        await self.probes.stop()
        await asyncio.to_thread(self.metrics.stop)
        await self.reload.stop()
        if self.tracing:
            await asyncio.to_thread(self.tracing.close)
        await self.security.close()
        await self.engine.recall.stop()
        await self.engine.batcher.close()
        self.engine.texts.close()
        await self.housekeeping.stop()
        await self.engine.tenants.close()
        if self.auditor:
            await self.auditor.close()
        await asyncio.to_thread(self.engine.preparer.close)


async def start(settings: Settings) -> App:
    """Returns the server once it answers.

    Raises:
        InvalidInput: The key of a de-identified library is unfit, a finding's file or the callers file is wrong, or
            strangers could reach the server.
        Unready: The encoder, the library or the address can not be had; nothing is left running.
    """
    security = await open_security(settings, SystemClock())
    privacy = await asyncio.to_thread(open_privacy, settings)
    declared = await asyncio.to_thread(Declarations, settings.findings)
    folder = settings.encoder or default_encoder_folder()
    encoder = await asyncio.to_thread(open_encoder, folder, runtime_choice(settings))
    text = await asyncio.to_thread(open_text, encoder.card) if encoder.card.text else None
    index = await open_tier(
        settings,
        dimension=encoder.card.dimension,
        encoder_identity=encoder.card.identity,
        pseudonym_check=privacy.check_value,
    )
    try:
        journal = await asyncio.to_thread(_journal, settings)  # the library is ours alone by now
        audit = await asyncio.to_thread(_audit_trail, settings)
    except BaseException:
        await index.close()
        raise
    engine = _build(settings, encoder, text, Tenants(index, journal, declared, settings), privacy, audit)
    try:
        await asyncio.to_thread(engine.preparer.wait_ready)
        await engine.tenants.start()
        engine.batcher.start()
        engine.recall.start()
        return await _listen(engine, security, Reload(declared, engine.clock))
    except BaseException:
        await engine.recall.stop()
        await engine.tenants.close()
        if audit:
            await audit.close()
        await asyncio.to_thread(engine.preparer.close)
        raise


def runtime_choice(settings: Settings) -> RuntimeChoice:
    """Returns what the settings say of the runtime."""
    return RuntimeChoice(
        name=settings.runtime,
        graphs=settings.cuda_graphs,
        engines=settings.engines_folder,
        gpu=settings.gpu,
        allow_cpu=settings.runtime_fallback,
    )


def _journal(settings: Settings) -> Journal:
    """The mark is a part of the library's own folder, where there is one: a copy of it takes its mark along."""
    library = settings.data / "library"
    mark = (library if library.is_dir() else settings.data) / "erasures.mark"
    return Journal.open(settings.erasures_file, mark)


def _audit_trail(settings: Settings) -> AuditTrail | None:
    if settings.audit == "off":
        return None
    return open_trail(settings.audit_trail_folder, settings.audit_key, SystemClock())


def _build(
    settings: Settings,
    encoder: Encoder,
    text: TextEncoder | None,
    tenants: Tenants,
    privacy: Privacy,
    audit: AuditTrail | None,
) -> Engine:
    clock, workers = SystemClock(), settings.decode_worker_count
    recipe = encoder.card.recipe
    sandbox = prepare_sandbox(
        recipe, workers=workers, wall_s=settings.decode_wall_s, memory_bytes=settings.decode_memory_bytes
    )
    batcher = make_batcher(encoder, clock, settings)
    return Engine(
        settings=settings,
        clock=clock,
        card=encoder.card,
        summary=encoder.card.summary(encoder.runtime),
        preparer=Preparer(sandbox, recipe, workers=workers, max_waiting=settings.max_waiting),
        batcher=batcher,
        line=Line(clock, places=max(workers, batcher.lanes) + 1, max_waiting=_most_waiting(settings)),
        texts=Texts(text, encoder.card.name, clock, max_waiting=settings.max_waiting),
        tenants=tenants,
        privacy=privacy,
        recall=RecallWatch(tenants.index, clock, every_hours=settings.recall_check_hours),
        is_fallback=isinstance(encoder, FallbackEncoder),
        flight=Flight(settings.max_bytes_in_flight),
        audit=audit,
    )


def _most_waiting(settings: Settings) -> int:
    """Half of the requests that may be in progress at most: a line that takes all of them would let nobody new in."""
    return min(settings.max_waiting, max(1, settings.max_concurrent_requests // 2))


def make_batcher(encoder: Encoder, clock: Clock, settings: Settings) -> Batcher:
    """Returns the queue before an encoder, as the encoder's device wants it."""
    is_on_cpu = isinstance(encoder, CpuEncoder | FallbackEncoder)
    lanes, most = (processor_count(), CPU_BATCH) if is_on_cpu else (GPU_LANES, GPU_BATCH)
    buckets = () if is_on_cpu else BUCKETS
    return Batcher(encoder, clock, max_batch=most, lanes=lanes, max_waiting=settings.max_waiting, buckets=buckets)


async def _listen(engine: Engine, security: Security, reload: Reload) -> App:
    settings = engine.settings
    places = settings.max_concurrent_requests, settings.max_adding_streams
    knows_callers = settings.callers is not None
    are_refused = engine.line.has_refused
    interceptor = ErrorInterceptor(*places, engine.clock, knows_callers=knows_callers, are_refused=are_refused)
    health = Health(engine, Canary(engine))
    tracing = Tracing.open(settings.otlp_endpoint)
    observer = Observer(engine.metrics, engine.clock, engine.flight, engine.line, tracing, settings.slow_request_ms)
    auditor = Auditor.of(engine)
    interceptors = [observer, security.gate, *([auditor] if auditor else []), interceptor]
    if auditor:
        security.gate.on_refused = auditor.refused
    server = grpc.aio.server(interceptors=interceptors, options=_options(settings, security))
    most = UPLOADS_OVER_LARGEST * settings.max_image_bytes
    keep_hours = settings.upload_keep_hours
    uploads = Uploads(settings.data / "uploads", max_bytes=most, keep_hours=keep_hours, in_memory=engine.privacy.is_on)
    search_pb2_grpc.add_SearchServiceServicer_to_server(SearchService(engine), server)
    decision_pb2_grpc.add_DecisionServiceServicer_to_server(DecisionService(engine), server)
    library_pb2_grpc.add_LibraryServiceServicer_to_server(LibraryService(engine, uploads), server)
    encoder_pb2_grpc.add_EncoderServiceServicer_to_server(EncoderService(engine), server)
    server.add_generic_rpc_handlers((health_calls(health.servicer, OpenCalls(OPEN_AT_ONCE), OpenCalls(MAX_WATCHES)),))
    if settings.reflection:
        reflection.enable_server_reflection((*SERVICES, "grpc.health.v1.Health", reflection.SERVICE_NAME), server)
    address = _open_port(server, settings.listen, security)
    probes = ProbePort()
    await probes.start(settings.health_listen, health.servicer)
    metrics = MetricsPort()
    engine.metrics.registry.register(
        server_gauges(engine, health, interceptor, security.gate.receiving, reload, auditor)
    )
    try:
        await asyncio.to_thread(metrics.start, settings.metrics_listen, engine.metrics.registry)
    except Unready:
        await probes.stop()
        raise
    if auditor:
        await auditor.started()
    await server.start()
    await health.start()
    reload.start()
    on_erased = auditor.erased if auditor else lambda _: None
    days = settings.retention_days
    housekeeping = Housekeeping(engine.tenants, uploads, engine.clock, retention_days=days, on_erased=on_erased)
    housekeeping.start()
    parts = (engine, health, housekeeping, interceptor, metrics, probes, reload, security, server)
    return App(address, *parts, tracing, auditor)


def _open_port(server: grpc.aio.Server, listen: str, security: Security) -> str:
    try:
        if security.credentials:
            port = server.add_secure_port(listen, security.credentials.for_server())
        else:
            port = server.add_insecure_port(listen)
    except RuntimeError:
        why = "another server is there, or it is no address of this machine"
        raise Unready(f"can not listen on {listen}: {why}", reason="ADDRESS") from None
    return f"{listen.rpartition(':')[0]}:{port}"


def _options(settings: Settings, security: Security) -> list[tuple[str, int]]:
    ages = [("grpc.max_connection_age_ms", MAX_CONNECTION_MS)] if security.credentials else []
    return [
        *ages,
        ("grpc.server_handshake_timeout_ms", 10_000),  # a stranger who connects and says nothing
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.max_send_message_length", settings.max_message_bytes),
        ("grpc.http2.bdp_probe", 0),
        ("grpc.http2.lookahead_bytes", WINDOW_BYTES),
        ("grpc.server.max_pending_requests", MAX_PENDING),
        ("grpc.server.max_pending_requests_hard_limit", MAX_PENDING),
        ("grpc.so_reuseport", 0),  # a second server on the port must fail, not share it
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ]


async def serve(settings: Settings, announce: Callable[[App], None]) -> None:
    """Starts, announces, and runs until SIGTERM or SIGINT; a second one does not cut the drain short.

    SIGHUP reads the findings anew.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    app = await start(settings)
    loop.add_signal_handler(signal.SIGHUP, app.reload.nudge)
    announce(app)
    await stop.wait()
    await app.stop()
