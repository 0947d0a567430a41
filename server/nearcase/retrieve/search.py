"""Query -> hits: the one way for every kind of example, grouping and order."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nearcase.retrieve.cases import to_case
from nearcase.retrieve.diversity import candidate_count, diversified
from nearcase.retrieve.duplicates import without_near_duplicates
from nearcase.retrieve.grouping import nearest_groups
from nearcase.retrieve.pooled import join, pool_queries, ranked_by_pool
from nearcase.retrieve.ranked import Ranked
from nearcase.retrieve.scope import Grouping, Query, Scope, SelfExclusion, SeriesMethod, in_scope
from nearcase.retrieve.votes import ranked_by_votes
from nearcase.types import Hit

if TYPE_CHECKING:
    from nearcase.index.base import Index
    from nearcase.index.filters import Filter

__all__ = ["Found", "Query", "Scope", "SelfExclusion", "join", "search"]


@dataclass(frozen=True, slots=True)
class Found:
    """The hits in order, most similar first unless diversity or votes order them, and how many cases were in scope."""

    hits: tuple[Hit, ...]
    candidate_count: int


async def search(index: Index, queries: Sequence[Query], scope: Scope) -> Found:
    """Returns the nearest cases of the scope.

    Raises:
        InvalidInput: The examples cancel each other out, or too many images are near duplicates of them.
    """
    where = in_scope(queries, scope)
    if scope.near_duplicate_similarity is not None:
        vectors = [query.vector for query in queries]
        where = await without_near_duplicates(index, vectors, where, scope.near_duplicate_similarity)
    count = candidate_count(scope.k) if scope.diversity else scope.k
    # Both are asked at once: an index answers the second before anybody has to be woken for it.
    counting = asyncio.ensure_future(index.count(where))
    try:
        ranked = await _ranked(index, queries, scope, where, count)
        candidates = await counting
    finally:
        counting.cancel()  # where the search failed; nobody asks then what became of the count
    if scope.diversity:
        ranked = await diversified(index, ranked, scope.k, scope.diversity)
    return Found(await _hits(index, ranked, scope), candidates)


async def _ranked(index: Index, queries: Sequence[Query], scope: Scope, where: Filter, count: int) -> list[Ranked]:
    least = -1.0 if scope.min_similarity is None else scope.min_similarity
    if scope.method is None:
        nearest = await nearest_groups(index, join(queries), count=count, where=where, grouping=scope.grouping)
        ranked = [Ranked(each, each.similarity) for each in nearest]
    elif scope.method is SeriesMethod.POOLED:
        pooled = pool_queries(queries, scope.pooling)
        ranked = await ranked_by_pool(
            index, pooled, scope.pooling, count=count, where=where, grouping=scope.grouping, images=len(queries)
        )
    else:
        vectors = [query.vector for query in queries]
        ranked = await ranked_by_votes(
            index, vectors, scope.method, count=count, least=least, where=where, grouping=scope.grouping
        )
    return [each for each in ranked if each.similarity >= least]


async def _hits(index: Index, ranked: Sequence[Ranked], scope: Scope) -> tuple[Hit, ...]:
    """Thumbnails are fetched for what is shown alone: searches look at many more cases."""
    payloads = {each.best.point_id: each.best.payload for each in ranked}
    if scope.with_thumbnails and ranked:
        payloads |= {record.point_id: record.payload for record in await index.get(list(payloads))}
    is_grouped = scope.grouping is not Grouping.INSTANCE
    hits = []
    for each in ranked:
        case = to_case(each.best.point_id, payloads[each.best.point_id])
        matched = case.facts.instance_uid if is_grouped else ""
        hits.append(Hit(case, each.similarity, each.matched_count, each.score, matched))
    return tuple(hits)
