"""What a search ranks, against brute force: exact shards, and sealed ones with their graph and int8 codes."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from strategies import point_id
from test_scorers import SCALES, VALUES, published

from nearcase.decide.finding import Scorer
from nearcase.decide.neighbours import Prior, tally, weigh
from nearcase.index.base import Point
from nearcase.index.edge.index import EdgeIndex
from nearcase.index.edge.plan import Sizes
from nearcase.index.exact import ExactIndex
from nearcase.index.filters import And, Equals, In, Not, Or, Range

SEALING = Sizes(exact_below=60, seal_at=40, shard_most=10_000, exact_candidates=15, rest_s=0.2)
COUNT, DIMENSION = 300, 16


def point(number: int, vector: NDArray[np.float32], **payload: str | float) -> Point:
    return Point(point_id(number), vector, payload)


async def test_the_engine_ranks_real_numbers_as_the_oracle_does(tmp_path: Path) -> None:
    """300 random unit vectors, where the two round differently: the ranking may differ only between near equals."""
    rng = np.random.default_rng(7)
    vectors = rng.normal(size=(300, 64)).astype(np.float32)
    exact, edge = ExactIndex(64), await EdgeIndex.open(tmp_path, 64)
    for index in (exact, edge):
        await index.upsert([point(n, v, sex="FMO"[n % 3], age_years=float(n)) for n, v in enumerate(vectors)])
    where = And((In("sex", ("F", "M")), Or((Range("age_years", below=200), Not(Equals("sex", "F"))))))
    for query in rng.normal(size=(20, 64)).astype(np.float32):
        expected = await exact.search(query, limit=25, where=where)
        found = await edge.search(query, limit=25, where=where)
        assert [n.similarity for n in found] == pytest.approx([n.similarity for n in expected], abs=1e-6)
        assert len({n.point_id for n in found} & {n.point_id for n in expected}) >= 24
    await edge.close()


async def sealed(index: EdgeIndex) -> None:
    for _ in range(600):
        state = await index.state()
        if not state.is_building and [part.kind for part in state.parts if part.point_count] == ["sealed"]:
            return
        await asyncio.sleep(0.1)
    raise AssertionError(state)


@pytest.mark.parametrize("tied", [False, True])
async def test_the_neighbours_scorer_equals_the_published_formula_on_a_sealed_library(
    tmp_path: Path, tied: bool
) -> None:
    """The formula runs over every reference; the library gives the K nearest of a graph search.

    On the index's own cosines it is equal to 1e-6. They are float32, which the temperature of 100 makes felt: against
    cosines of 64 bits from the vectors, a share is off by at most 50 times what a cosine is off, 2e-5 here.
    """
    rng = np.random.default_rng(5)
    vectors = rng.normal(size=(COUNT, DIMENSION)).astype(np.float32)
    if tied:
        vectors = np.repeat(vectors[: COUNT // 3], 3, axis=0)
    values = [VALUES[at] for at in rng.integers(0, 3, COUNT)]
    index = await EdgeIndex.open(tmp_path, DIMENSION, sizes=SEALING)
    await index.upsert([point(n, v, source=value) for n, (v, value) in enumerate(zip(vectors, values, strict=True))])
    await sealed(index)
    assert not (await index.state()).is_exact
    order = sorted(range(COUNT), key=point_id)  # ties go by id
    units = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float64)
    for query in rng.normal(size=(5, DIMENSION)).astype(np.float32):
        every = {n.point_id: n.similarity for n in await index.search(query, limit=COUNT, exact=True)}
        cosines = np.asarray([every[point_id(n)] for n in order])
        doubles = (units[order] * (query / np.linalg.norm(query))).sum(axis=1)  # by row: equal rows, equal cosines
        assert cosines == pytest.approx(doubles, abs=1e-6)
        for k in (1, 10, 64):
            found = await index.search(query, limit=k)
            priors = [Prior(n.point_id, n.similarity, str(n.payload["source"])) for n in found]
            for classes in SCALES:
                shares = dict(tally(priors, weigh(priors, Scorer(k=k, class_weights=classes))))
                expected = published(cosines, [values[n] for n in order], k, dict(classes))
                assert shares == pytest.approx({value: expected[value] for value in shares}, abs=1e-6)
                exactly = published(doubles, [values[n] for n in order], k, dict(classes))
                off = max(abs(share - exactly[value]) for value, share in shares.items())
                assert off <= min(2e-5, 50.0 * float(np.abs(cosines - doubles).max()) * (1 + 1e-3) + 1e-12)
    await index.close()
