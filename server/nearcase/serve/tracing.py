"""Traces for OpenTelemetry: a span for each request and for each of its stages, sent when the request has ended.

A caller that sends a W3C traceparent sees them below its own span. Its tracestate is left out, and so is everything
else that it wrote: a span holds names of calls and stages, codes, and times.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Protocol

from nearcase import __version__
from nearcase.errors import InvalidInput

if TYPE_CHECKING:
    from nearcase.serve.caller import Metadata
    from nearcase.serve.trail import Trail

TRACEPARENT = "traceparent"


class Told(Protocol):
    """What is known of a request that ended."""

    @property
    def rpc(self) -> str:
        """Its name, such as v1.SearchService/Search."""
        ...

    @property
    def code(self) -> str:
        """How it ended."""
        ...

    @property
    def start_s(self) -> float:
        """On the monotonic clock."""
        ...

    @property
    def end_s(self) -> float:
        """On the monotonic clock."""
        ...


class Tracing:
    """Sends spans, in threads of the library's own; a receiver that is away costs spans and nothing else."""

    def __init__(self, provider: Any, propagator: Any) -> None:
        self._provider, self._propagator = provider, propagator
        self._tracer = provider.get_tracer("nearcase", __version__)

    @classmethod
    def open(cls, endpoint: str) -> Tracing | None:
        """Returns what sends to http(s)://HOST:PORT, a receiver of OTLP over gRPC; None without one.

        Raises:
            InvalidInput: The extra is not installed.
        """
        if not endpoint:
            return None
        try:
            from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
            from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
        except ImportError:
            message = "setting otlp_endpoint is given, expected the extra too: pip install nearcase[traces]"
            raise InvalidInput(message, field="otlp_endpoint") from None
        about = Resource.create({"service.name": "nearcase", "service.version": __version__})
        provider = TracerProvider(resource=about, shutdown_on_exit=False)
        exporter = OTLPSpanExporter(endpoint=endpoint, insecure=endpoint.startswith("http://"))
        provider.add_span_processor(BatchSpanProcessor(exporter))
        return cls(provider, TraceContextTextMapPropagator())

    def tell(self, told: Told, trail: Trail, metadata: Metadata) -> None:
        """Queues the spans of one request."""
        from opentelemetry.trace import SpanKind, StatusCode, set_span_in_context

        carrier = {key: value for key, value in metadata if key == TRACEPARENT and isinstance(value, str)}
        service, _, method = told.rpc.rpartition("/")
        attributes = {
            "rpc.system": "grpc",
            "rpc.service": f"nearcase.{service}",
            "rpc.method": method,
            "nearcase.code": told.code,
            "nearcase.stages_left_out": trail.left_out_count,
        }
        span = self._tracer.start_span(
            told.rpc,
            context=self._propagator.extract(carrier),
            kind=SpanKind.SERVER,
            attributes=attributes,
            start_time=_wall_ns(told.start_s),
        )
        if told.code in ("INTERNAL", "UNKNOWN", "UNAVAILABLE"):
            span.set_status(StatusCode.ERROR)
        below = set_span_in_context(span)
        for stage in trail.stages:
            part = self._tracer.start_span(stage.name, context=below, start_time=_wall_ns(stage.start_s))
            part.end(_wall_ns(stage.end_s))
        span.end(_wall_ns(told.end_s))

    def close(self) -> None:
        """Sends what waits, for some seconds at most."""
        self._provider.force_flush(3000)
        self._provider.shutdown()


def _wall_ns(monotonic_s: float) -> int:
    """A time on the monotonic clock as one of the calendar."""
    return time.time_ns() - round((time.monotonic() - monotonic_s) * 1e9)
