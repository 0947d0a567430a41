"""Builds a library of new embeddings beside an old one: the same cases, each with the vector of another encoder.

What is there already is not embedded again, so that a build that was cut short goes on; what has changed in the old
library since is changed here too, and what has gone from it goes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

from nearcase.errors import InvalidInput, NearcaseError, Unready, Unsupported
from nearcase.index.base import Point
from nearcase.retrieve.bulk import pages
from nearcase.retrieve.cases import to_case, to_payload
from nearcase.transfers import StoredCase
from nearcase.types import Case

if TYPE_CHECKING:
    from nearcase.encode.batcher import Batcher
    from nearcase.index.base import Index
    from nearcase.prepare import Preparer
    from nearcase.serve.privacy import Privacy
    from nearcase.types import Embedding

BATCH = 64
PAGE = 256


@dataclass(frozen=True, slots=True)
class Embedder:
    """The path from a file to its vector, as a server goes it when it adds."""

    preparer: Preparer
    batcher: Batcher
    privacy: Privacy

    async def embed(self, path: Path, case: Case) -> Embedding:
        """Returns the embedding of the frame that a case is of.

        Raises:
            InvalidInput, Unsupported: The file can not be read any more, may not be taken, or is another one now.
        """
        try:
            data = await asyncio.to_thread(path.read_bytes)
        except OSError as error:
            raise InvalidInput(f"the file can not be read: {error.strerror}", reason="UNREADABLE_FILE") from None
        prepared = await self.preparer.prepare(data, case.frame_number, self.privacy.adding, bulk=True)
        if self.privacy.digest(prepared.content_sha256) != case.content_sha256:
            raise InvalidInput("the file changed while it was read")
        return (await self.batcher.embed(prepared.pixels, bulk=True)).embedding


class Lost(Enum):
    """Why a case has no new embedding."""

    MISSING = "missing"  # its file was not found
    REFUSED = "refused"  # its file was found and can not be embedded


@dataclass(frozen=True, slots=True)
class Built:
    """What a build did; cases are named by their ids."""

    case_count: int = 0  # of the old library
    embedded_count: int = 0
    kept_count: int = 0  # that were there from an earlier build
    removed_count: int = 0  # that have gone from the old library since an earlier build
    missing: tuple[str, ...] = ()  # whose file was not found
    refused: tuple[str, ...] = ()  # whose file was found and can not be embedded


class Build:
    """One build.

    Args:
        index: The new library's.
        embedder: With the new encoder.
        originals: The file of each content hash.
    """

    def __init__(self, index: Index, embedder: Embedder, originals: Mapping[str, Path]) -> None:
        self._index, self._embedder, self._originals = index, embedder, originals
        self._built = Built()

    async def run(self, cases: Iterator[StoredCase], advance: Callable[[int], None]) -> Built:
        """Returns what was done once it is durable.

        Args:
            cases: Of the old library, in the order of their ids; taken in a thread, since they come over the network.
            advance: Is told how many cases each step worked off.

        Raises:
            Unready: The old library's server or the disk is gone; the same call goes on from there.
        """
        seen: set[str] = set()
        async for batch in _batches(cases):
            await self._mirror(batch)
            seen.update(stored.case.case_id for stored in batch)
            advance(len(batch))
        return replace(self._built, case_count=len(seen), removed_count=await self._remove_others(seen))

    async def _mirror(self, batch: Sequence[StoredCase]) -> None:
        ids = [stored.case.case_id for stored in batch]
        there = {record.point_id: record for record in await self._index.get(ids, with_vectors=True)}
        points: list[Point] = []
        wanted: list[StoredCase] = []
        for stored in batch:
            record = there.get(stored.case.case_id)
            known = to_case(record.point_id, record.payload) if record else None
            if record is None or known is None or record.vector is None or not _of_one_image(known, stored):
                wanted.append(stored)
            elif known != stored.case:
                points.append(Point(record.point_id, record.vector, to_payload(stored.case)))
        self._built = replace(self._built, kept_count=self._built.kept_count + len(batch) - len(wanted))
        points += await self._embedded(wanted)
        if points:
            await self._index.upsert(points)

    async def _embedded(self, wanted: Sequence[StoredCase]) -> list[Point]:
        results = await asyncio.gather(*(self._one(stored) for stored in wanted))
        outcomes = [(stored.case, result) for stored, result in zip(wanted, results, strict=True)]
        points = [Point(case.case_id, at, to_payload(case)) for case, at in outcomes if not isinstance(at, Lost)]
        self._built = replace(
            self._built,
            embedded_count=self._built.embedded_count + len(points),
            missing=(*self._built.missing, *(case.case_id for case, at in outcomes if at is Lost.MISSING)),
            refused=(*self._built.refused, *(case.case_id for case, at in outcomes if at is Lost.REFUSED)),
        )
        return points

    async def _one(self, stored: StoredCase) -> Embedding | Lost:
        path = self._originals.get(stored.case.content_sha256)
        if path is None or not stored.case.content_sha256:
            return Lost.MISSING
        try:
            return await self._embedder.embed(path, stored.case)
        except (InvalidInput, Unsupported):
            return Lost.REFUSED

    async def _remove_others(self, seen: set[str]) -> int:
        """Erases what the old library does not have any more: a patient who was erased there is erased here."""
        gone: list[str] = []
        async for page in pages(self._index, page_size=PAGE):
            gone += [stored.case.case_id for stored in page if stored.case.case_id not in seen]
        if gone:
            await self._index.erase(gone)
        return len(gone)


async def _batches(cases: Iterator[StoredCase]) -> AsyncIterator[list[StoredCase]]:
    def take() -> list[StoredCase]:
        try:
            return [stored for _, stored in zip(range(BATCH), cases, strict=False)]
        except NearcaseError:
            raise
        except Exception as error:
            raise Unready(f"the old library can not be read further ({type(error).__name__})") from error

    while batch := await asyncio.to_thread(take):
        yield batch


def _of_one_image(known: Case, stored: StoredCase) -> bool:
    """Whether a vector that is there was made from the same frame of the same bytes."""
    case = stored.case
    parts = ("content_sha256", "frame_number", "frame_count")
    return all(getattr(known, part) == getattr(case, part) for part in parts)
