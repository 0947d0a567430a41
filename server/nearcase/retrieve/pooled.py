"""The volume method of 3D-MIR (arXiv 2311.13752): one embedding for the query, compared with one for each group."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nearcase.errors import InvalidInput
from nearcase.index.filters import Filter, In
from nearcase.index.points import SHORTEST_LENGTH
from nearcase.retrieve.cases import THUMBNAIL
from nearcase.retrieve.grouping import group_of, nearest_groups
from nearcase.retrieve.library import all_of
from nearcase.retrieve.ranked import Ranked
from nearcase.retrieve.scope import Grouping, Pooling, Query

if TYPE_CHECKING:
    from nearcase.index.base import Index, Neighbour
    from nearcase.types import Embedding

PAGE = 500
CANDIDATES = 50
"""Least groups to compare by their pooled embeddings, as in 3D-MIR."""

_POOLS: dict[Pooling, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    Pooling.MEAN: lambda rows: rows.mean(axis=0),
    Pooling.MEDIAN: lambda rows: np.median(rows, axis=0),
    Pooling.MAX: lambda rows: rows.max(axis=0),
}


def pool(vectors: Sequence[Embedding | NDArray[np.float64]], pooling: Pooling) -> Embedding:
    """Returns one unit vector (D,) for several (D,).

    Raises:
        InvalidInput: They cancel each other out.
    """
    pooled = _direction(vectors, pooling)
    if pooled is None:
        raise InvalidInput("the examples cancel each other out; change their weights", field="examples")
    return pooled


def join(queries: Sequence[Query]) -> Embedding:
    """Returns the unit vector along the weighted sum of the examples' embeddings.

    Raises:
        InvalidInput: The examples cancel each other out.
    """
    if len(queries) == 1 and queries[0].weight > 0:
        return queries[0].vector  # as most searches are: nothing to join
    return pool([np.float64(query.weight) * query.vector for query in queries], Pooling.MEAN)


def pool_queries(queries: Sequence[Query], pooling: Pooling) -> Embedding:
    """Returns one vector for all images of a query: those of one weight are pooled, and the pools joined by weight."""
    weights = sorted({query.weight for query in queries}, reverse=True)
    pools = [pool([query.vector for query in queries if query.weight == weight], pooling) for weight in weights]
    return join([Query(queries[0].case, vector, weight) for weight, vector in zip(weights, pools, strict=True)])


async def ranked_by_pool(
    index: Index, vector: Embedding, pooling: Pooling, *, count: int, where: Filter, grouping: Grouping, images: int
) -> list[Ranked]:
    """Returns the groups by the cosine of their pooled embedding with a query's, equal ones by the id of their image.

    A group whose embeddings cancel each other out is like nothing, and left out.

    Args:
        index: Where to look.
        vector: The query's pooled embedding.
        pooling: How each group's embeddings become one: those in scope.
        count: How many groups.
        where: The scope.
        grouping: What a group is.
        images: How many images the query has.
    """
    wanted = count if grouping is Grouping.INSTANCE else max(4 * count, CANDIDATES)
    candidates = await nearest_groups(index, vector, count=wanted, where=where, grouping=grouping)
    if grouping is Grouping.INSTANCE:
        return [Ranked(each, each.similarity, images) for each in candidates]
    members = await _members(index, candidates, where, grouping)
    ranked = [
        Ranked(each, _cosine(vector, pooled), images)
        for each in candidates
        if (rows := members.get(group_of(each.point_id, each.payload, grouping)))
        and (pooled := _direction(rows, pooling)) is not None
    ]
    return sorted(ranked, key=lambda each: (-each.similarity, each.best.point_id))[:count]


async def _members(
    index: Index, candidates: Sequence[Neighbour], where: Filter, grouping: Grouping
) -> dict[str, list[Embedding]]:
    """The embeddings of each candidate's images, in the order of their ids; a group erased meanwhile is gone."""
    members: dict[str, list[Embedding]] = {}
    keys = tuple(sorted({str(each.payload[grouping.value]) for each in candidates if grouping.value in each.payload}))
    cursor = None
    while keys:
        inside = all_of(where, In(grouping.value, keys))
        page = await index.scroll(limit=PAGE, cursor=cursor, where=inside, without=(THUMBNAIL,), with_vectors=True)
        for record in page.records:
            if record.vector is not None:
                members.setdefault(group_of(record.point_id, record.payload, grouping), []).append(record.vector)
        if (cursor := page.next_cursor) is None:
            break
    lone = [each.point_id for each in candidates if grouping.value not in each.payload]
    for record in await index.get(lone, with_vectors=True) if lone else []:
        if record.vector is not None:
            members[group_of(record.point_id, record.payload, grouping)] = [record.vector]
    return members


def _direction(vectors: Sequence[Embedding | NDArray[np.float64]], pooling: Pooling) -> Embedding | None:
    """The unit vector (D,) of several (D,); None where they cancel each other out."""
    pooled = _POOLS[pooling](np.stack(vectors).astype(np.float64))
    length = float(np.linalg.norm(pooled))
    if not np.isfinite(length) or length < SHORTEST_LENGTH:
        return None
    return (pooled / length).astype(np.float32)


def _cosine(query: Embedding, pooled: Embedding) -> float:
    return float(np.clip(pooled.astype(np.float64) @ query.astype(np.float64), -1.0, 1.0))
