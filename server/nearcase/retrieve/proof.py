"""Is it gone? What was erased is asked for again, in every way that a case can be found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from nearcase.index.filters import In

if TYPE_CHECKING:
    from nearcase.index.base import Index
    from nearcase.types import Embedding

MAX_PROBES = 1000
"""Embeddings that are searched with again, evenly spread over what was erased; ids are all asked for."""

CHUNK = 256
NEAREST = 10


async def probes(index: Index, case_ids: Sequence[str]) -> list[Embedding]:
    """Returns the embeddings to search with after the cases are gone."""
    step = max(1, -(-len(case_ids) // MAX_PROBES))
    chosen = case_ids[::step]
    found: list[Embedding] = []
    for at in range(0, len(chosen), CHUNK):
        records = await index.get(chosen[at : at + CHUNK], with_vectors=True)
        found += [record.vector for record in records if record.vector is not None]
    return found


async def found_again(index: Index, case_ids: Sequence[str], vectors: Sequence[Embedding]) -> int:
    """Returns how many of the cases are still found: by id, by a count, or by searching with their embeddings."""
    erased, seen, counted = set(case_ids), set[str](), 0
    for at in range(0, len(case_ids), CHUNK):
        part = tuple(case_ids[at : at + CHUNK])
        seen |= {record.point_id for record in await index.get(part)}
        counted += await index.count(In("case_id", part))
    for at in range(0, len(vectors), CHUNK):
        answers = await index.search_batch(vectors[at : at + CHUNK], limit=NEAREST, without=("thumbnail_jpeg",))
        seen |= {each.point_id for answer in answers for each in answer} & erased
    return max(counted, len(seen))
