"""Cases out of the library with their embeddings, and into it from another."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING

from nearcase.errors import InvalidInput, NearcaseError
from nearcase.exchange.messages import (
    MAX_BATCH_BYTES,
    MAX_BATCH_CASES,
    batches,
    cases_from_proto,
    counts_to_proto,
    identity_to_proto,
)
from nearcase.exchange.rows import check_stored
from nearcase.index.filter_text import parse
from nearcase.index.points import check_ids
from nearcase.retrieve.bulk import pages
from nearcase.serve.chunks import next_of
from nearcase.serve.notes import notes
from nearcase.transfers import ImportCounts, LibraryIdentity, StoredCase
from nearcase.v1.library_pb2 import (
    ExportCasesRequest,
    ExportCasesResponse,
    ExportedCases,
    ImportCasesRequest,
    ImportCasesResponse,
)

if TYPE_CHECKING:
    from nearcase.serve.engine import Engine

Batch = tuple[StoredCase, ...]

PAGE_CASES = 256
"""Cases that an export holds at once, whatever the client takes."""

BATCHES_PER_COMMIT = 4
"""Batches that one flush to the disk serves, where so many wait."""


async def export_cases(engine: Engine, request: ExportCasesRequest) -> AsyncIterator[ExportCasesResponse]:
    """Yields the library's identity, then its cases in the order of their ids, as fast as the client takes them.

    Raises:
        InvalidInput: The filter or the case id is malformed.
    """
    after = request.after_case_id or None
    check_ids([after] if after else [])
    asked = parse(request.filter) if request.filter.strip() else None
    where = engine.privacy.where(asked) if asked else None
    identity = LibraryIdentity(
        encoder_identity=engine.card.identity,
        dimension=engine.card.dimension,
        pseudonym_check=engine.privacy.check_value,
        snapshot=await engine.library.snapshot(),
        case_count=await engine.library.count(where),
    )
    yield ExportCasesResponse(identity=identity_to_proto(identity))
    notes().library = identity.snapshot
    notes().asked("filter", request.filter.strip())
    async for page in pages(engine.index, where=where, after=after, page_size=PAGE_CASES):
        notes().shown(stored.case for stored in page)
        for message in batches(page):
            yield ExportCasesResponse(cases=message)


async def import_cases(
    engine: Engine, requests: AsyncIterator[ImportCasesRequest]
) -> AsyncIterator[ImportCasesResponse]:
    """Yields what became of each batch once it is durable; batches that wait are committed together.

    Raises:
        InvalidInput: The cases are of another encoder or key, or one of them can not be of a library; batches that
            were answered stay.
        Overloaded: Nothing came for long.
    """
    first = await _next(engine, requests)
    if first is None or first.WhichOneof("part") != "identity":
        raise InvalidInput("expected the identity of the exported library first", field="identity")
    _compare(engine, first)
    waiting: asyncio.Queue[Batch | NearcaseError | None] = asyncio.Queue(BATCHES_PER_COMMIT)
    reader = asyncio.create_task(_read(engine, requests, waiting))
    try:
        end: NearcaseError | Batch | None = ()
        while isinstance(end, tuple):
            batches, end = await _take(waiting)
            for counts in await _commit(engine, batches):
                yield counts_to_proto(counts)
        if end is not None:
            raise end
    finally:
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)


async def _read(
    engine: Engine, requests: AsyncIterator[ImportCasesRequest], waiting: asyncio.Queue[Batch | NearcaseError | None]
) -> None:
    """Checks batches as they come, and reads no further while enough wait, which is the back-pressure."""
    try:
        while (request := await _next(engine, requests)) is not None:
            if request.WhichOneof("part") != "cases":
                raise InvalidInput("expected cases after the identity", field="cases")
            now_s = engine.clock.now_s()
            await waiting.put(await asyncio.to_thread(_checked, request.cases, engine.card.dimension, now_s))
        await waiting.put(None)
    except NearcaseError as error:
        await waiting.put(error)


async def _take(
    waiting: asyncio.Queue[Batch | NearcaseError | None],
) -> tuple[list[Batch], Batch | NearcaseError | None]:
    """Returns the batches that wait, and what ends the stream; () where it goes on."""
    batches: list[Batch] = []
    item = await waiting.get()
    while isinstance(item, tuple):
        batches.append(item)
        if len(batches) == BATCHES_PER_COMMIT or waiting.empty():
            return batches, ()
        item = waiting.get_nowait()
    return batches, item


async def _commit(engine: Engine, batches: Sequence[Batch]) -> list[ImportCounts]:
    cases = [stored for batch in batches for stored in batch]
    notes().shown(stored.case for stored in cases)
    outcomes = iter(await engine.library.put(cases, engine.erasures.is_erased) if cases else ())
    return [sum((next(outcomes) for _ in batch), ImportCounts()) for batch in batches]


async def _next(engine: Engine, requests: AsyncIterator[ImportCasesRequest]) -> ImportCasesRequest | None:
    return await next_of(requests, engine.settings.stream_idle_s)


def _compare(engine: Engine, first: ImportCasesRequest) -> None:
    """Embeddings of two encoders can not be compared, nor pseudonyms of two keys."""
    theirs, card = first.identity, engine.card
    if (theirs.encoder_identity, theirs.dimension) != (card.identity, card.dimension):
        raise InvalidInput(
            f"expected cases of encoder {card.identity} ({card.dimension} numbers), got cases of "
            f"{theirs.encoder_identity[:200]} ({theirs.dimension}): their embeddings can not be compared",
            reason="ENCODER_MISMATCH",
            field="identity",
        )
    ours = engine.privacy.check_value
    if theirs.pseudonym_check != ours:
        raise InvalidInput(
            f"expected cases {_privacy_in_words(ours)}, got cases {_privacy_in_words(theirs.pseudonym_check)}"
            f"{' with another key' if ours and theirs.pseudonym_check else ''}",
            reason="DEIDENTIFICATION_MISMATCH",
            field="identity",
        )


def _privacy_in_words(check_value: str) -> str:
    return "of a de-identified library" if check_value else "of a library that keeps facts as stated"


def _checked(message: ExportedCases, dimension: int, now_s: float) -> tuple[StoredCase, ...]:
    if len(message.cases) > MAX_BATCH_CASES or message.ByteSize() > 2 * MAX_BATCH_BYTES:
        limits = f"{MAX_BATCH_CASES} cases and {MAX_BATCH_BYTES} bytes"
        raise InvalidInput(f"expected batches of at most {limits}, got a larger one", field="cases")
    cases = cases_from_proto(message)
    for number, stored in enumerate(cases, 1):
        try:
            check_stored(stored, dimension, now_s)
        except InvalidInput as error:
            raise InvalidInput(f"case {number} of this batch: {error}", field=error.field) from None
    return cases
