"""One build and its comparison, from the old library's server to a report."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nearcase.clock import SystemClock
from nearcase.encode.card import Card
from nearcase.encode.preprocess import Recipe
from nearcase.encode.runtime import open_encoder
from nearcase.errors import InvalidInput, Unsupported
from nearcase.index.opening import open_index
from nearcase.prepare import Preparer, prepare_sandbox
from nearcase.reembed.building import Build, Built, Embedder
from nearcase.reembed.comparing import Comparison, K, compare
from nearcase.reembed.originals import files_below, find_originals
from nearcase.reembed.pairs import Pairs, joined_by_id, pairing_in
from nearcase.reembed.report import Recall, Report, Side, drop_report
from nearcase.reembed.switching import NEW, OLD
from nearcase.retrieve.bulk import pages
from nearcase.retrieve.snapshot import Snapshot
from nearcase.serve.app import make_batcher, runtime_choice
from nearcase.serve.privacy import Privacy, open_privacy
from nearcase.transfers import LibraryIdentity, StoredCase

if TYPE_CHECKING:
    from nearcase.encode.base import Encoder
    from nearcase.index.base import Index
    from nearcase.settings import Settings
    from nearcase.transfer_client import TransferClient

RECALL_QUERIES = 200
_PAGE = 256

Steps = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
"""Shows what is done, of how many; what it gives moves it on."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What to build."""

    settings: Settings  # with the data folder and the new encoder
    images: tuple[Path, ...]  # files, and folders of files
    sample: int = 1000  # queries of the comparison


async def reembed(wish: Wish, old: TransferClient, steps: Steps) -> Report:
    """Returns the report of a build that is durable, and compared.

    Args:
        wish: What to build.
        old: The server of the old library, which goes on serving.
        steps: Shows what is done.

    Raises:
        InvalidInput: The old library is of the same encoder, or of another pseudonym key.
        Unready: The encoder, the old library's server or the disk can not be had; the same call goes on from there.
        Unsupported: The encoder reads whole series.
    """
    settings = wish.settings
    privacy = await asyncio.to_thread(open_privacy, settings)
    before = await asyncio.to_thread(old.identity)
    encoder = await asyncio.to_thread(_opened_encoder, settings)
    _check(settings.data, before, encoder.card, privacy)
    drop_report(settings.data)
    async with _next_library(settings.data, encoder.card, privacy) as index:
        built = await _build(wish, old, index, encoder, privacy, before.case_count, steps)
        comparison, recall = await _compare(wish, old, index, before, encoder.card, steps)
        after = await asyncio.to_thread(old.identity)
        count, snapshot = await _named(index)
    words = (encoder.card.identity, encoder.card.dimension, before.pseudonym_check)
    return Report(
        old=Side(before.encoder_identity, before.dimension, before.pseudonym_check, before.case_count, before.snapshot),
        new=Side(*words, count, snapshot),
        built=built,
        comparison=comparison,
        recall=recall,
        changed_meanwhile=before.snapshot != after.snapshot,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _opened_encoder(settings: Settings) -> Encoder:
    if settings.encoder is None:
        raise InvalidInput("expected the folder of the new encoder, got none", field="encoder")
    encoder = open_encoder(settings.encoder, runtime_choice(settings))
    if not isinstance(encoder.card.recipe, Recipe):
        raise Unsupported("expected an encoder of single images, got one that reads whole series")
    return encoder


def _check(data: Path, old: LibraryIdentity, card: Card, privacy: Privacy) -> None:
    if old.encoder_identity == card.identity:
        raise InvalidInput("expected another encoder than the library's own, got the same", field="encoder")
    if old.pseudonym_check != privacy.check_value:
        raise InvalidInput(
            "expected the deidentify and pseudonym_key of the old library's server, got others",
            reason="DEIDENTIFICATION_MISMATCH",
            field="pseudonym_key",
        )
    if not (data / OLD).is_dir():
        raise InvalidInput(f"expected the data folder of the old library, got one without {OLD}", field="data")


@asynccontextmanager
async def _next_library(data: Path, card: Card, privacy: Privacy) -> AsyncIterator[Index]:
    index = await open_index(
        data / NEW,
        dimension=card.dimension,
        encoder_identity=card.identity,
        pseudonym_check=privacy.check_value,
    )
    try:
        yield index
    finally:
        await index.close()


async def _build(
    wish: Wish, old: TransferClient, index: Index, encoder: Encoder, privacy: Privacy, count: int, steps: Steps
) -> Built:
    files = await asyncio.to_thread(lambda: list(files_below(wish.images)))
    with steps("looking at files", len(files)) as advance:
        originals = await asyncio.to_thread(find_originals, files, privacy.digest, lambda: advance(1))
    async with _embedder(wish.settings, encoder, privacy) as embedder:
        with steps("embedding", count) as advance:
            return await Build(index, embedder, originals).run(old.export(), advance)


@asynccontextmanager
async def _embedder(settings: Settings, encoder: Encoder, privacy: Privacy) -> AsyncIterator[Embedder]:
    workers = settings.decode_worker_count
    sandbox = prepare_sandbox(
        encoder.card.recipe, workers=workers, wall_s=settings.decode_wall_s, memory_bytes=settings.decode_memory_bytes
    )
    preparer = Preparer(sandbox, encoder.card.recipe, workers=workers, max_waiting=settings.max_waiting)
    batcher = make_batcher(encoder, SystemClock(), settings)
    batcher.start()
    try:
        await asyncio.to_thread(preparer.wait_ready)
        yield Embedder(preparer, batcher, privacy)
    finally:
        await batcher.close()
        await asyncio.to_thread(preparer.close)


async def _compare(
    wish: Wish, old: TransferClient, index: Index, before: LibraryIdentity, card: Card, steps: Steps
) -> tuple[Comparison, Recall]:
    with pairing_in(wish.settings.data) as pairing:
        with steps("reading both", before.case_count) as advance:
            async for one, other in joined_by_id(_in_thread(old.export()), _one_by_one(index)):
                pairing.take(one.case, one.vector, other.vector)
                advance(1)
        pairs = pairing.finish(before.dimension, card.dimension)
        with steps("comparing", min(wish.sample, len(pairs.case_ids))) as advance:
            comparison = await asyncio.to_thread(lambda: compare(pairs, sample=wish.sample, advance=advance))
        return comparison, await _recall(index, pairs)


async def _recall(index: Index, pairs: Pairs) -> Recall:
    """The neighbours that the new library's index finds, against all of them scored."""
    count = len(pairs.case_ids)
    queries = np.random.default_rng(0).permutation(count)[:RECALL_QUERIES]
    shares: list[float] = []
    for query in queries:
        vector = np.array(pairs.new[query])
        found, exact = [await index.search(vector, limit=K, exact=each, without=_PICTURE) for each in (False, True)]
        wanted = {neighbour.point_id for neighbour in exact}
        shares.append(len(wanted & {neighbour.point_id for neighbour in found}) / len(wanted))
    is_exact = (await index.state()).is_exact
    return Recall(float(np.mean(shares)) if shares else 1.0, len(shares), K, is_exact)


_PICTURE: Sequence[str] = ("thumbnail_jpeg",)


async def _named(index: Index) -> tuple[int, str]:
    snapshot, count = Snapshot(), 0
    async for stored in _one_by_one(index):
        snapshot.add(stored.case)
        count += 1
    return count, snapshot.name


async def _one_by_one(index: Index) -> AsyncIterator[StoredCase]:
    async for page in pages(index, page_size=_PAGE):
        for stored in page:
            yield stored


async def _in_thread(cases: Iterator[StoredCase]) -> AsyncIterator[StoredCase]:
    """Takes some at a time, since each step into a thread costs more than a case."""

    def take() -> list[StoredCase]:
        return [stored for _, stored in zip(range(_PAGE), cases, strict=False)]

    while some := await asyncio.to_thread(take):
        for stored in some:
            yield stored
