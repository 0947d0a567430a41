"""Whole series as a query: votes and pools against plain loops over all images, and what they may never find."""

from __future__ import annotations

import math
import uuid
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_series import DIMENSION, Made, Vector, direction, index_of, made_series, scaled
from numpy.typing import NDArray

from nearcase.errors import InvalidInput, NotAllowed, NotFound
from nearcase.index.filters import Equals
from nearcase.retrieve.pooled import join, pool, pool_queries
from nearcase.retrieve.scope import Grouping, Pooling, Query, Scope, SelfExclusion, SeriesMethod
from nearcase.retrieve.search import search
from nearcase.retrieve.stored import common_facts, stored_images
from nearcase.retrieve.votes import NEIGHBOURS
from nearcase.types import Case, CaseFacts

IMAGES = made_series(10, series=12)
VOTES = (SeriesMethod.FREQUENCY, SeriesMethod.MAX, SeriesMethod.SUM)
POOLS: dict[Pooling, Callable[..., NDArray[np.float64]]] = {
    Pooling.MEAN: np.mean,
    Pooling.MEDIAN: np.median,
    Pooling.MAX: np.max,
}
ALL = Scope(self_exclusion=SelfExclusion.NONE, grouping=Grouping.SERIES)


def queries_of(series: int, images: list[Made] = IMAGES) -> list[Query]:
    uid = f"1.{series // 2}.{series}"
    return [Query(each.case, each.vector) for each in images if each.case.facts.series_uid == uid]


def key(case: Case) -> str:
    return case.facts.series_uid or case.case_id


def voted(images: list[Made], queries: list[Query], method: SeriesMethod) -> list[tuple[str, int, float]]:
    """Each series with the number of images that named it and its score, in order: 3D-MIR in plain loops."""
    named: dict[str, list[tuple[int, float, str]]] = defaultdict(list)
    for number, query in enumerate(queries):
        pairs = [(float(np.float32(np.clip(each.vector.astype(float) @ query.vector, -1, 1))), each) for each in images]
        for similarity, each in sorted(pairs, key=lambda pair: (-pair[0], pair[1].case.case_id))[:NEIGHBOURS]:
            named[key(each.case)].append((number, similarity, each.case.case_id))

    def score(found: list[tuple[int, float, str]]) -> float:
        values = [similarity for _, similarity, _ in found]
        by_method = {SeriesMethod.FREQUENCY: float(len(values)), SeriesMethod.SUM: math.fsum(values)}
        return by_method.get(method, max(values))

    def place(name: str) -> tuple[float, float, str]:
        best = min(named[name], key=lambda each: (-each[1], each[2]))
        return -score(named[name]), -best[1], best[2]

    return [
        (name, len({number for number, _, _ in named[name]}), score(named[name])) for name in sorted(named, key=place)
    ]


@pytest.mark.parametrize("method", VOTES)
async def test_votes_are_those_of_plain_loops(method: SeriesMethod) -> None:
    index = await index_of(IMAGES)
    for series in range(0, 12, 4):
        queries = queries_of(series)
        expected = voted(IMAGES, queries, method)
        found = await search(index, queries, replace(ALL, k=len(expected), method=method))
        assert [(key(hit.case), hit.matched_count) for hit in found.hits] == [each[:2] for each in expected]
        shown = [hit.similarity if hit.score is None else hit.score for hit in found.hits]
        assert shown == pytest.approx([score for _, _, score in expected], abs=1e-5)


@pytest.mark.parametrize("method", SeriesMethod)
async def test_there_are_k_series_or_all(method: SeriesMethod) -> None:
    index = await index_of(IMAGES)
    every = {key(each.case) for each in IMAGES}
    for k in (1, 5, len(every), 1000):
        found = await search(index, queries_of(0), replace(ALL, k=k, method=method))
        names = [key(hit.case) for hit in found.hits]
        assert len(names) == len(set(names)) == min(k, len(every))
    assert set(names) == every


@pytest.mark.parametrize("pooling", Pooling)
async def test_pools_are_compared_exactly(pooling: Pooling) -> None:
    index = await index_of(IMAGES)
    stacks: dict[str, list[Vector]] = defaultdict(list)
    for each in IMAGES:
        stacks[key(each.case)].append(each.vector)
    pools = {name: scaled(POOLS[pooling](np.array(stack, float), axis=0)) for name, stack in stacks.items()}
    for series in range(12):
        queries = queries_of(series)
        found = await search(index, queries, replace(ALL, k=10, method=SeriesMethod.POOLED, pooling=pooling))
        own = pools[key(queries[0].case)]
        expected = sorted(pools, key=lambda name: -float(pools[name] @ own))[:10]
        assert [key(hit.case) for hit in found.hits] == expected
        assert [hit.similarity for hit in found.hits] == pytest.approx(
            [float(pools[n] @ own) for n in expected], abs=1e-5
        )
        assert found.hits[0].matched_count == len(queries)
        assert found.hits[0].score is None


@pytest.mark.parametrize("pooling", [Pooling.MEAN, Pooling.MEDIAN])
async def test_a_stored_series_without_a_direction_is_left_out(pooling: Pooling) -> None:
    facts, queries = CaseFacts(series_uid="1.99", study_uid="1.98"), queries_of(0)
    opposed = [
        Made(Case(str(uuid.UUID(int=number)), facts), vector)
        for number, vector in enumerate((queries[0].vector, -queries[0].vector))
    ]
    scope = replace(ALL, k=1000, method=SeriesMethod.POOLED, pooling=pooling)
    found = await search(await index_of([*IMAGES, *opposed]), queries, scope)
    alone = await search(await index_of(IMAGES), queries, scope)
    assert [hit.case for hit in found.hits] == [hit.case for hit in alone.hits]


@pytest.mark.parametrize("method", SeriesMethod)
@pytest.mark.parametrize("grouping", Grouping)
async def test_a_series_never_finds_its_own_patient_nor_what_is_flagged(
    method: SeriesMethod, grouping: Grouping
) -> None:
    images = [
        replace(each, case=replace(each.case, flags=("excluded",))) if n % 5 == 0 else each
        for n, each in enumerate(IMAGES)
    ]
    index = await index_of(images)
    queries = queries_of(4)
    found = await search(index, queries, Scope(k=1000, method=method, grouping=grouping))
    allowed = {each.case.case_id for each in images if not each.case.flags and each.case.facts.patient_id != "P2"}
    assert found.candidate_count == len(allowed)
    assert {hit.case.case_id for hit in found.hits} <= allowed
    if grouping is Grouping.INSTANCE:
        assert {hit.case.case_id for hit in found.hits} == allowed


@pytest.mark.parametrize("method", SeriesMethod)
async def test_floor_filter_and_near_duplicates_hold_for_series(method: SeriesMethod) -> None:
    index = await index_of(IMAGES)
    queries = queries_of(6)
    floor = await search(index, queries, replace(ALL, k=1000, method=method, min_similarity=0.6))
    assert floor.hits
    assert all(hit.similarity >= 0.6 for hit in floor.hits)
    some = await search(index, queries, replace(ALL, k=1000, method=method, where=Equals("study_uid", "1.3")))
    assert {hit.case.facts.study_uid for hit in some.hits} == {"1.3"}
    far = await search(index, queries, replace(ALL, k=1000, method=method, near_duplicate_similarity=0.8))
    copies = {each.case.case_id for each in IMAGES if any(float(each.vector @ q.vector) >= 0.8 for q in queries)}
    assert far.candidate_count == len(IMAGES) - len(copies)
    assert not copies & {hit.case.case_id for hit in far.hits}


@given(st.integers(1, 12), st.integers(0, 2**32), st.sampled_from(Pooling))
def test_pooling_laws(count: int, seed: int, pooling: Pooling) -> None:
    rng = np.random.default_rng(seed)
    vectors = [direction(rng) for _ in range(count)]
    found = pool(vectors, pooling)
    assert float(np.linalg.norm(found)) == pytest.approx(1.0, abs=1e-6)
    assert pool(vectors[::-1], pooling) == pytest.approx(found, abs=1e-6)
    assert pool([vectors[0]] * count, pooling) == pytest.approx(vectors[0], abs=1e-6)


def test_images_of_one_weight_are_pooled_together_and_pools_joined_by_weight() -> None:
    rng, case = np.random.default_rng(5), Case("", CaseFacts())
    like = [direction(rng) for _ in range(7)]
    unlike = direction(rng)
    queries = [*(Query(case, vector) for vector in like), Query(case, unlike, -0.5)]
    expected = scaled(1.0 * pool(like, Pooling.MEDIAN).astype(float) - 0.5 * unlike)
    assert pool_queries(queries, Pooling.MEDIAN) == pytest.approx(expected, abs=1e-6)
    assert pool_queries(queries[:1], Pooling.MAX) == pytest.approx(like[0], abs=1e-6)
    assert join(queries[:1]) == pytest.approx(like[0], abs=1e-6)
    with pytest.raises(InvalidInput, match="cancel"):
        pool_queries([Query(case, unlike), Query(case, unlike, -1.0)], Pooling.MEAN)
    with pytest.raises(InvalidInput, match="cancel"):
        pool([unlike, -unlike], Pooling.MEAN)


async def test_stored_images_are_all_of_them_without_the_flagged() -> None:
    images = made_series(11, series=40, lone=0)
    images[0] = replace(images[0], case=replace(images[0].case, flags=("no-consent",)))
    index = await index_of(images)
    uid = images[0].case.facts.study_uid
    expected = {each.case.case_id for each in images if each.case.facts.study_uid == uid and not each.case.flags}
    found = await stored_images(index, Equals("study_uid", uid))
    assert {case.case_id for case, _ in found} == expected
    assert all(vector.shape == (DIMENSION,) for _, vector in found)
    with pytest.raises(NotAllowed) as refused:
        await stored_images(index, Equals("case_id", images[0].case.case_id))
    assert refused.value.reason == "CASE_FLAGGED"
    with pytest.raises(NotFound):
        await stored_images(index, Equals("case_id", "nobody"))


async def test_a_query_of_too_many_images_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nearcase.retrieve.stored.MOST", 20)
    monkeypatch.setattr("nearcase.retrieve.stored.PAGE", 7)
    index = await index_of(IMAGES)
    with pytest.raises(InvalidInput, match="at most 20 images"):
        await stored_images(index, Equals("patient_key", "|P0"))


def test_common_facts_are_what_all_state_alike() -> None:
    one = CaseFacts(patient_id="1", modality="CT", age_years=40.0, instance_uid="1.1")
    two = CaseFacts(patient_id="1", modality="PT", age_years=40.0, instance_uid="1.2")
    assert common_facts([one, two]) == CaseFacts(patient_id="1", age_years=40.0)
    assert common_facts([one]) == one
