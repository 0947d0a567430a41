"""Maximal marginal relevance: laws, and a brute-force oracle."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_series import direction, index_of, made_series
from numpy.typing import NDArray

from nearcase.retrieve.diversity import candidate_count, choose
from nearcase.retrieve.scope import Grouping, Query, Scope
from nearcase.retrieve.search import search
from nearcase.types import Case, CaseFacts

IMAGES = made_series(20)


def brute(similarities: NDArray[np.float64], vectors: NDArray[np.float64], k: int, diversity: float) -> list[int]:
    taken: list[int] = []
    while len(taken) < min(k, len(similarities)):
        left = [at for at in range(len(similarities)) if at not in taken]
        marginal = [
            (1 - diversity) * similarities[at]
            - diversity * max((float(vectors[at] @ vectors[t]) for t in taken), default=0.0)
            for at in left
        ]
        taken.append(left[int(np.argmax(np.round(marginal, 12)))])
    return taken


@given(st.integers(1, 30), st.integers(1, 40), st.integers(0, 2**32), st.floats(0, 0.99))
def test_choosing_is_that_of_brute_force(count: int, k: int, seed: int, diversity: float) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(count, 8))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    query = rng.normal(size=8)
    similarities = np.sort(vectors @ query / np.linalg.norm(query))[::-1]
    chosen = choose(similarities, vectors, k, diversity)
    assert chosen == brute(similarities, vectors, k, diversity)
    assert chosen[0] == 0
    assert len(set(chosen)) == len(chosen) == min(k, count)
    if diversity == 0:
        assert chosen == list(range(min(k, count)))


def test_copies_come_last() -> None:
    one, two = np.eye(4)[0], np.eye(4)[1]
    vectors = np.array([one, one, one, two])
    assert choose(np.array([0.9, 0.9, 0.9, 0.5]), vectors, 4, 0.5) == [0, 3, 1, 2]


@pytest.mark.parametrize("grouping", [Grouping.INSTANCE, Grouping.SERIES])
async def test_hits_are_some_of_the_nearest_and_the_first_is_the_nearest(grouping: Grouping) -> None:
    index, rng = await index_of(IMAGES), np.random.default_rng(0)
    spread = []
    for _ in range(10):
        query = [Query(Case("", CaseFacts()), direction(rng))]
        plain = await search(index, query, Scope(k=10, grouping=grouping))
        pool = await search(index, query, Scope(k=candidate_count(10), grouping=grouping))
        diverse = await search(index, query, Scope(k=10, grouping=grouping, diversity=0.7))
        assert diverse.hits[0] == plain.hits[0]
        assert len(diverse.hits) == 10
        assert {hit.case.case_id for hit in diverse.hits} <= {hit.case.case_id for hit in pool.hits}
        assert diverse.candidate_count == plain.candidate_count
        series = [len({hit.case.facts.series_uid for hit in found.hits}) for found in (plain, diverse)]
        spread.append(series[1] - series[0])
    if grouping is Grouping.INSTANCE:
        assert sum(spread) > 0
