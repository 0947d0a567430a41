"""Copies of the query under another name: images that are all but the same, and teach nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from nearcase.errors import InvalidInput
from nearcase.index.filters import Filter, In, Not
from nearcase.retrieve.batches import search_all
from nearcase.retrieve.library import all_of

if TYPE_CHECKING:
    from nearcase.index.base import Index
    from nearcase.types import Embedding

MOST = 10_000
"""Near duplicates of one query; more of them are no copies, and the limit was set too low."""

FIRST_LIMIT = 16


async def without_near_duplicates(index: Index, vectors: Sequence[Embedding], where: Filter, least: float) -> Filter:
    """Returns the filter without the images at or above a cosine to any of the vectors.

    Raises:
        InvalidInput: There are more than MOST.
    """
    found: set[str] = set()
    waiting, limit = list(vectors), FIRST_LIMIT
    while waiting:
        answers = await search_all(index, waiting, limit=limit, where=where)
        for answer in answers:
            found.update(each.point_id for each in answer if each.similarity >= least)
        if len(found) > MOST:
            message = f"expected at most {MOST} images to be near duplicates of the query, found more; raise the limit"
            raise InvalidInput(message, field="near_duplicate_similarity")
        waiting = [
            vector
            for vector, answer in zip(waiting, answers, strict=True)
            if len(answer) == limit and answer[-1].similarity >= least
        ]
        limit *= 4
    return all_of(where, Not(In("case_id", tuple(sorted(found))))) or where if found else where
