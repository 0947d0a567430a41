"""Images of the library as a query: one, or all of a series or study."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from nearcase.errors import InvalidInput, NotAllowed, NotFound
from nearcase.retrieve.cases import to_case
from nearcase.types import Case, CaseFacts

if TYPE_CHECKING:
    from nearcase.index.base import Index
    from nearcase.index.filters import Filter
    from nearcase.types import Embedding

PAGE = 500
MOST = 4096
"""Images of one query: each of them is searched with, unless they are pooled."""


async def stored_images(index: Index, where: Filter) -> list[tuple[Case, Embedding]]:
    """Returns the cases that match with their embeddings, in the order of their ids; those with a flag are left out.

    Raises:
        NotFound: There are none.
        NotAllowed: With reason CASE_FLAGGED: all of them have a flag.
        InvalidInput: There are more than MOST.
    """
    found: list[tuple[Case, Embedding]] = []
    cursor = None
    while True:
        page = await index.scroll(limit=PAGE, cursor=cursor, where=where, with_vectors=True)
        for record in page.records:
            if record.vector is not None:
                found.append((to_case(record.point_id, record.payload), record.vector))
        if len(found) > MOST:
            raise InvalidInput(f"expected a query of at most {MOST} images, got more; ask for a series of the study")
        if (cursor := page.next_cursor) is None:
            break
    if not found:
        raise NotFound("no such case in this library", reason="CASE_NOT_FOUND")
    usable = [(case, vector) for case, vector in found if not case.flags]
    if not usable:
        message = "the case is excluded from the library's evidence, and so may not be searched with"
        raise NotAllowed(message, reason="CASE_FLAGGED")
    return usable


def common_facts(every: Sequence[CaseFacts]) -> CaseFacts:
    """Returns what all state alike; what differs is of single images, and stays empty."""
    shared = {
        field.name: getattr(every[0], field.name)
        for field in dataclasses.fields(CaseFacts)
        if len({getattr(facts, field.name) for facts in every}) == 1
    }
    return CaseFacts(**shared)
