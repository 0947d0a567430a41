"""What all services share: from a file, or a stored case, to a query with its embedding."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nearcase.errors import InvalidInput, Unsupported
from nearcase.index.filters import Equals
from nearcase.retrieve.cases import case_id_of
from nearcase.retrieve.search import Query
from nearcase.types import Case, EncoderSummary, QueryImage

if TYPE_CHECKING:
    import grpc

    from nearcase.clock import Clock
    from nearcase.encode.batcher import Batcher, Embedded
    from nearcase.encode.card import Card
    from nearcase.index.base import Index
    from nearcase.prepare import Prepared, Preparer
    from nearcase.retrieve.library import Library
    from nearcase.serve.findings import Findings
    from nearcase.serve.privacy import Privacy
    from nearcase.serve.records import Records
    from nearcase.settings import Settings


@dataclass(frozen=True, slots=True)
class Embedding:
    """A prepared file with its embedding and what each stage took."""

    prepared: Prepared
    embedded: Embedded
    decode_ms: float


@dataclass(frozen=True, slots=True)
class Example:
    """A query, and what its image turned out to be."""

    query: Query
    image: QueryImage
    decode_ms: float = 0.0
    queue_ms: float = 0.0
    encode_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class Engine:
    """The running parts, built by `app.py` and handed to each service."""

    settings: Settings
    clock: Clock
    card: Card
    summary: EncoderSummary
    preparer: Preparer
    batcher: Batcher
    index: Index
    library: Library
    privacy: Privacy
    findings: Findings
    records: Records

    def deadline_s(self, context: grpc.aio.ServicerContext[Any, Any]) -> float | None:
        """The caller's deadline on the monotonic clock; None without one."""
        remaining_s = context.time_remaining()
        return None if remaining_s is None else self.clock.monotonic_s() + remaining_s

    async def embed(
        self, data: bytes, frame_number: int | None, *, deadline_s: float | None, adding: bool = False
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
        prepared = await self.preparer.prepare(data, frame_number, text_policy, bulk=adding)
        decode_ms = (self.clock.monotonic_s() - start_s) * 1e3
        embedded = await self.batcher.embed(prepared.pixels, deadline_s=deadline_s, bulk=adding)
        return Embedding(prepared, embedded, decode_ms)

    async def example(self, source: Any, weight: float, *, deadline_s: float | None) -> Example:
        """Returns the query that a message with a `source` oneof and a frame number asks for.

        Raises:
            InvalidInput: No source is given.
            NotFound: The case is not in the library.
            Unsupported: No engine here serves this kind of source.
        """
        kind = source.WhichOneof("source")
        frame_number = source.frame_number if source.HasField("frame_number") else None
        if kind == "image":
            return await self._from_file(source.image, frame_number, weight, deadline_s)
        if frame_number is not None:
            raise InvalidInput("a frame_number belongs to an image; a stored case is one frame", field="frame_number")
        if kind in ("case_id", "instance_uid"):
            return await self._from_library(kind, getattr(source, kind), weight)
        if kind is None:
            raise InvalidInput("expected an example: image, case_id or instance_uid", field="source")
        raise Unsupported(
            f"UNIMPLEMENTED: a query by {kind} is not served by this version", reason="UNIMPLEMENTED", field=kind
        )

    async def examples(self, sources: list[tuple[Any, float]], *, deadline_s: float | None) -> list[Example]:
        """Returns all queries; the first that fails ends the others."""
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self.example(source, weight, deadline_s=deadline_s)) for source, weight in sources
                ]
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return [task.result() for task in tasks]

    async def _from_file(
        self, data: bytes, frame_number: int | None, weight: float, deadline_s: float | None
    ) -> Example:
        embedding = await self.embed(data, frame_number, deadline_s=deadline_s)
        prepared, embedded = embedding.prepared, embedding.embedded
        query = Query(self.privacy.case(to_case(prepared)), embedded.embedding, weight)
        return Example(query, prepared.image, embedding.decode_ms, embedded.queue_ms, embedded.encode_ms)

    async def _from_library(self, kind: str, key: str, weight: float) -> Example:
        case, vector = await self.library.get(
            key if kind == "case_id" else self.privacy.where(Equals("instance_uid", key))
        )
        image = QueryImage(case.facts, case.frame_number, case.frame_count, (), case.thumbnail_jpeg)
        return Example(Query(case, vector, weight), image)


def to_case(prepared: Prepared) -> Case:
    """Returns the case that a file is, before anything is added to what it says."""
    image = prepared.image
    return Case(
        case_id=case_id_of(image.facts, prepared.content_sha256, image.frame_number),
        facts=image.facts,
        frame_number=image.frame_number,
        frame_count=image.frame_count,
        content_sha256=prepared.content_sha256,
        thumbnail_jpeg=image.thumbnail_jpeg,
    )
