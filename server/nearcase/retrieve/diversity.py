"""Hits that differ from each other: maximal marginal relevance (Carbonell and Goldstein, SIGIR 1998)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nearcase.retrieve.ranked import Ranked

if TYPE_CHECKING:
    from nearcase.index.base import Index

CANDIDATES = 50
"""Least hits to choose from."""


def candidate_count(k: int) -> int:
    """Returns how many of the nearest hits the k are chosen from."""
    return max(4 * k, CANDIDATES)


async def diversified(index: Index, ranked: Sequence[Ranked], k: int, diversity: float) -> list[Ranked]:
    """Returns k of the hits, in the order in which they were chosen; the nearest is the first."""
    records = await index.get([each.best.point_id for each in ranked], with_vectors=True) if ranked else []
    vectors = {record.point_id: record.vector for record in records if record.vector is not None}
    present = [each for each in ranked if each.best.point_id in vectors]  # one may have been erased meanwhile
    if not present:
        return []
    stacked = np.stack([vectors[each.best.point_id] for each in present]).astype(np.float64)
    chosen = choose(np.array([each.similarity for each in present]), stacked, k, diversity)
    return [present[at] for at in chosen]


def choose(similarities: NDArray[np.float64], vectors: NDArray[np.float64], k: int, diversity: float) -> list[int]:
    """Returns which of N candidates to take, in order: each the one that is most like the query and least like those
    taken before. Equal ones are taken in the order given.

    Args:
        similarities: (N,) with the query.
        vectors: (N, D), unit length.
        k: How many; all where there are fewer.
        diversity: 1 - lambda, from 0 (by similarity alone) to below 1.
    """
    alike = vectors @ vectors.T
    taken: list[int] = []
    nearest_taken = np.zeros(len(similarities))
    for _ in range(min(k, len(similarities))):
        marginal = (1.0 - diversity) * similarities - diversity * nearest_taken
        marginal[taken] = -np.inf
        best = int(np.argmax(marginal))
        nearest_taken = np.maximum(nearest_taken, alike[best]) if taken else alike[best]
        taken.append(best)
    return taken
