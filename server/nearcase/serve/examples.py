"""From what a request names - a file, a case, a series, an embedding, words - to queries with their embeddings."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from nearcase.errors import InvalidInput
from nearcase.index.filters import Equals
from nearcase.index.points import unit
from nearcase.retrieve.annotations import fill
from nearcase.retrieve.scope import Query
from nearcase.retrieve.stored import common_facts, stored_images
from nearcase.serve.annotations import read_facts
from nearcase.serve.engine import Engine, to_case
from nearcase.serve.subjects import query_of
from nearcase.types import Case, CaseFacts, QueryImage

if TYPE_CHECKING:
    from nearcase.v1 import decision_pb2, encoder_pb2, search_pb2

MAX_FILES = 64
AT_ONCE = 16
"""Files of one request that are prepared side by side: one caller must not fill the queue."""

_STORED = ("case_id", "instance_uid", "series_uid", "study_uid")


@dataclass(frozen=True, slots=True)
class Example:
    """One example as queries, and what it turned out to be."""

    queries: tuple[Query, ...]  # one, or all images of a stored series or study
    image: QueryImage
    is_words: bool = False
    decode_ms: float = 0.0
    queue_ms: float = 0.0
    encode_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class _Asked:
    """How the files of one request are asked with."""

    facts: CaseFacts
    deadline_s: float | None
    with_thumbnail: bool


async def examples_of(
    engine: Engine,
    sources: Sequence[tuple[search_pb2.Example, float]],
    *,
    deadline_s: float | None,
    with_thumbnail: bool,
) -> list[Example]:
    """Returns the examples with their weights, in the same order; the first that fails ends the others."""
    if len(sources) == 1:  # as most searches are: nothing to run side by side
        return [await example_of(engine, *sources[0], deadline_s=deadline_s, with_thumbnail=with_thumbnail)]
    places = asyncio.Semaphore(AT_ONCE)

    async def one(source: search_pb2.Example, weight: float) -> Example:
        async with places:
            return await example_of(engine, source, weight, deadline_s=deadline_s, with_thumbnail=with_thumbnail)

    return await _all_or_first_error([one(source, weight) for source, weight in sources])


async def example_of(
    engine: Engine,
    source: search_pb2.Example | decision_pb2.DecideRequest,
    weight: float = 1.0,
    *,
    deadline_s: float | None,
    with_thumbnail: bool,
) -> Example:
    """Returns the queries that a message with a `source` oneof and a frame number asks for.

    Args:
        engine: The running parts.
        source: The message.
        weight: How much it counts.
        deadline_s: On the clock's monotonic scale.
        with_thumbnail: False where nobody asked to see a file's picture: then none is made.

    Raises:
        InvalidInput: No source is given, its file can not be read, states other facts than the message, or an
            embedding is another encoder's.
        NotFound: The case, series or study is not in the library.
        NotAllowed: It has a flag.
        Unsupported: It is words, and the encoder has no text tower.
    """
    kind = source.WhichOneof("source")
    frame_number = source.frame_number if source.HasField("frame_number") else None
    facts = read_facts(source.facts)
    asked = _Asked(facts, deadline_s, with_thumbnail)
    if kind == "image":
        return await _from_file(engine, source.image, frame_number, asked, weight)
    if facts != CaseFacts() and kind != "files":
        raise InvalidInput("facts belong to a file: a stored case has its own, and so has a vector", field="facts")
    if frame_number is not None:
        raise InvalidInput("a frame_number belongs to one file; a stored case is one frame", field="frame_number")
    if kind in _STORED:
        return await _from_library(engine, kind, getattr(source, kind), weight)
    if kind == "vector":
        return _from_vector(engine, source.vector, weight)  # type: ignore[union-attr]  # of Example alone
    if kind == "files":
        return await _from_files(engine, source.files.images, asked)  # type: ignore[union-attr]
    if kind == "text":
        return await _from_text(engine, source.text, weight, deadline_s)  # type: ignore[union-attr]
    raise InvalidInput("expected an example: a file, a case, a series, a study, words or an embedding", field="source")


async def _from_file(
    engine: Engine, data: bytes, frame_number: int | None, asked: _Asked, weight: float = 1.0
) -> Example:
    embedding = await engine.embed(data, frame_number, deadline_s=asked.deadline_s, with_thumbnail=asked.with_thumbnail)
    prepared, embedded = embedding.prepared, embedding.embedded
    query = await query_of(engine, to_case(prepared), asked.facts, embedded.embedding, weight)
    image = dataclasses.replace(prepared.image, facts=fill(prepared.image.facts, asked.facts))
    stages = (embedding.decode_ms, embedded.queue_ms, embedded.encode_ms)
    return Example((query,), image, False, *stages)


async def _from_files(engine: Engine, files: Sequence[encoder_pb2.ImageInput], asked: _Asked) -> Example:
    """Several files as one example, whose timings are those of the slowest."""
    if not 1 <= len(files) <= MAX_FILES:
        message = f"expected 1 to {MAX_FILES} files, got {len(files)}; add a longer series and name its series_uid"
        raise InvalidInput(message, field="files")
    places = asyncio.Semaphore(AT_ONCE)

    async def one(file: encoder_pb2.ImageInput) -> Example:
        frame_number = file.frame_number if file.HasField("frame_number") else None
        async with places:
            return await _from_file(engine, file.image, frame_number, asked)

    every = await _all_or_first_error([one(file) for file in files])
    first = every[0].image
    image = QueryImage(
        common_facts([each.image.facts for each in every]),
        first.frame_number,
        first.frame_count,
        first.rules,
        first.thumbnail_jpeg,
        len(every),
    )
    return Example(
        tuple(each.queries[0] for each in every),
        image,
        False,
        max(each.decode_ms for each in every),
        max(each.queue_ms for each in every),
        max(each.encode_ms for each in every),
    )


async def _from_library(engine: Engine, kind: str, key: str, weight: float) -> Example:
    found = await stored_images(engine.index, engine.privacy.where(Equals(kind, key)))
    first = found[0][0]
    if kind in ("case_id", "instance_uid"):
        found = found[:1]
    image = QueryImage(
        common_facts([case.facts for case, _ in found]),
        first.frame_number,
        first.frame_count,
        (),
        first.thumbnail_jpeg,
        len(found),
    )
    return Example(tuple(Query(case, vector, weight) for case, vector in found), image)


def _from_vector(engine: Engine, message: search_pb2.EncodedVector, weight: float) -> Example:
    if message.encoder_sha256 != engine.summary.sha256:
        expected = f"an embedding of the encoder {engine.summary.name} with SHA-256 {engine.summary.sha256[:12]}"
        raise InvalidInput(f"expected {expected}, got one of another encoder", field="encoder_sha256")
    vector = unit(np.array(message.values, np.float32), engine.summary.dimension)
    facts = read_facts(message.facts)
    query = Query(engine.privacy.case(Case("", facts)), vector, weight)
    return Example((query,), QueryImage(facts))


async def _from_text(engine: Engine, text: str, weight: float, deadline_s: float | None) -> Example:
    """Words have no patient, so that nothing is left out for them."""
    start_s = engine.clock.monotonic_s()
    vector = await engine.texts.embed(text, deadline_s=deadline_s)
    encode_ms = (engine.clock.monotonic_s() - start_s) * 1e3
    query = Query(Case("", CaseFacts()), vector, weight)
    return Example((query,), QueryImage(CaseFacts()), is_words=True, encode_ms=encode_ms)


async def _all_or_first_error(work: Sequence[Coroutine[Any, Any, Example]]) -> list[Example]:
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(each) for each in work]
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks]
