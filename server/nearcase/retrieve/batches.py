"""Many vectors searched for at once, in batches that leave room for other callers between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from nearcase.retrieve.cases import THUMBNAIL

if TYPE_CHECKING:
    from nearcase.index.base import Index, Neighbour
    from nearcase.index.filters import Filter
    from nearcase.types import Embedding

BATCH = 32


async def search_all(index: Index, vectors: Sequence[Embedding], *, limit: int, where: Filter) -> list[list[Neighbour]]:
    """Returns the nearest images of each vector, without thumbnails."""
    found: list[list[Neighbour]] = []
    for start in range(0, len(vectors), BATCH):
        batch = vectors[start : start + BATCH]
        found += await index.search_batch(batch, limit=limit, where=where, without=(THUMBNAIL,))
    return found
