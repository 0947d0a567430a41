"""The best image of each series, study or patient, exactly: the search goes on until there are enough groups.

Each round leaves out the groups that are found. What is left is ordered as before, so that the first image of a group
in any round is its best, and no group is passed over however many images the groups before it have.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from nearcase.index.filters import Filter, In, Not
from nearcase.retrieve.cases import THUMBNAIL
from nearcase.retrieve.library import all_of
from nearcase.retrieve.scope import Grouping

if TYPE_CHECKING:
    from nearcase.index.base import Index, Neighbour, Payload
    from nearcase.types import Embedding

PAGE = 64
"""Least images of a round: a series has many that are alike."""


async def nearest_groups(
    index: Index, vector: Embedding, *, count: int, where: Filter, grouping: Grouping
) -> list[Neighbour]:
    """Returns the best image of each of the nearest groups, most similar first, without thumbnails; fewer than `count`
    only where there are no more groups.
    """
    if grouping is Grouping.INSTANCE:
        return await index.search(vector, limit=count, where=where, without=(THUMBNAIL,))
    found: list[Neighbour] = []
    while (missing := count - len(found)) > 0:
        limit = max(PAGE, 2 * missing)
        page = await index.search(vector, limit=limit, where=beyond(where, found, grouping), without=(THUMBNAIL,))
        found += best_of_each(page, grouping)[:missing]
        if len(page) < limit:
            break
    return found


def best_of_each(neighbours: Iterable[Neighbour], grouping: Grouping) -> list[Neighbour]:
    """Returns the first of each group."""
    best: dict[str, Neighbour] = {}
    for neighbour in neighbours:
        best.setdefault(group_of(neighbour.point_id, neighbour.payload, grouping), neighbour)
    return list(best.values())


def group_of(point_id: str, payload: Payload, grouping: Grouping) -> str:
    """Returns what tells a case's group apart; a case that states none is its own."""
    return str(payload.get(grouping.value) or f"case {point_id}")


def beyond(where: Filter, found: Sequence[Neighbour], grouping: Grouping) -> Filter:
    """Returns the filter without the groups of what is found."""
    keys = tuple(sorted({str(each.payload[grouping.value]) for each in found if each.payload.get(grouping.value)}))
    lone = tuple(each.point_id for each in found if not each.payload.get(grouping.value))
    parts = [Not(In(field, values)) for field, values in ((grouping.value, keys), ("case_id", lone)) if values]
    return all_of(where, *parts) or where
