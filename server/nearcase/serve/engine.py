"""What all services share: the running parts, and the way from a file to its embedding."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nearcase.errors import InvalidInput
from nearcase.retrieve.cases import case_id_of
from nearcase.serve.caller import current
from nearcase.serve.flight import Flight
from nearcase.serve.metrics import Metrics, make_metrics
from nearcase.serve.trail import note
from nearcase.settings import MAX_BYTES_IN_FLIGHT
from nearcase.types import Case, EncoderSummary

if TYPE_CHECKING:
    import grpc

    from nearcase.audit.trail import AuditTrail
    from nearcase.clock import Clock
    from nearcase.encode.batcher import Batcher, Embedded
    from nearcase.encode.card import Card
    from nearcase.index.base import Index
    from nearcase.prepare import Prepared, Preparer
    from nearcase.retrieve.erasures import Erasures
    from nearcase.retrieve.library import Library
    from nearcase.serve.findings import Findings
    from nearcase.serve.line import Line
    from nearcase.serve.privacy import Privacy
    from nearcase.serve.recall import RecallWatch
    from nearcase.serve.records import Records
    from nearcase.serve.tenants import Tenants
    from nearcase.serve.texts import Texts
    from nearcase.settings import Settings


@dataclass(frozen=True, slots=True)
class Embedding:
    """A prepared file with its embedding and what each stage took."""

    prepared: Prepared
    embedded: Embedded
    decode_ms: float


@dataclass(frozen=True, slots=True)
class Engine:
    """The running parts, built by `app.py` and handed to each service."""

    settings: Settings
    clock: Clock
    card: Card
    summary: EncoderSummary
    preparer: Preparer
    batcher: Batcher
    line: Line
    texts: Texts
    tenants: Tenants
    privacy: Privacy
    recall: RecallWatch
    is_fallback: bool = False  # the encoder runs on the CPU because the GPU can not be had
    metrics: Metrics = field(default_factory=make_metrics)
    flight: Flight = field(default_factory=lambda: Flight(MAX_BYTES_IN_FLIGHT))
    audit: AuditTrail | None = None  # None where no audit trail is kept

    @property
    def index(self) -> Index:
        """That of the tenant who asks, as is all of the next four."""
        return self.tenants.here().index

    @property
    def library(self) -> Library:
        """Its cases."""
        return self.tenants.here().library

    @property
    def findings(self) -> Findings:
        """What can be decided."""
        return self.tenants.here().findings

    @property
    def records(self) -> Records:
        """The records of its decisions."""
        return self.tenants.here().records

    @property
    def erasures(self) -> Erasures:
        """What was erased."""
        return self.tenants.here().erasures

    def deadline_s(self, context: grpc.aio.ServicerContext[Any, Any]) -> float | None:
        """The caller's deadline on the monotonic clock; None without one."""
        remaining_s = context.time_remaining()
        return None if remaining_s is None else self.clock.monotonic_s() + remaining_s

    def took(self, *, adding: bool = False, **taken_ms: float) -> None:
        """Notes what stages took that followed one another and ended now, for metrics, traces and the log."""
        self.metrics.take_stages(taken_ms, adding=adding)
        note(taken_ms.items(), self.clock.monotonic_s())

    async def embed(
        self,
        data: bytes,
        frame_number: int | None,
        *,
        deadline_s: float | None,
        adding: bool = False,
        with_thumbnail: bool = True,
    ) -> Embedding:
        """Returns the embedding of a file's frame; one that is for adding gives way to searches.

        Raises:
            InvalidInput, Unsupported: The file can not be read, or may not enter the library.
            Overloaded: Too much waits.
            TimeoutError: The deadline passed before the work began.
        """
        if not data:
            raise InvalidInput("expected a DICOM, PNG or JPEG file, got no bytes", field="image")
        if frame_number is not None and frame_number < 1:
            raise InvalidInput(f"frames count from 1, got {frame_number}", field="frame_number")
        start_s = self.clock.monotonic_s()
        text_policy = self.privacy.adding if adding else self.privacy.asking
        prepared = await self.preparer.prepare(
            data, frame_number, text_policy, bulk=adding, with_thumbnail=with_thumbnail
        )
        decode_ms = (self.clock.monotonic_s() - start_s) * 1e3
        embedded = await self.batcher.embed(prepared.pixels, deadline_s=deadline_s, bulk=adding)
        self.took(adding=adding, decode=decode_ms, queue=embedded.queue_ms, encode=embedded.encode_ms)
        return Embedding(prepared, embedded, decode_ms)


def to_case(prepared: Prepared) -> Case:
    """Returns the case that a file is, before anything is added to what it says."""
    image = prepared.image
    return Case(
        case_id=case_id_of(
            image.facts, prepared.content_sha256, image.frame_number, current().tenant, is_series=prepared.is_series
        ),
        facts=image.facts,
        frame_number=image.frame_number,
        frame_count=image.frame_count,
        content_sha256=prepared.content_sha256,
        thumbnail_jpeg=image.thumbnail_jpeg,
    )
