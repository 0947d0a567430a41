"""One contract for every index: what holds for brute force in memory holds for the engine on the disk."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qdrant_indexes import in_memory, on_a_server
from strategies import filters, point_id, points

from nearcase.errors import InvalidInput, Unready
from nearcase.index.base import Index, Payload, Point
from nearcase.index.edge.index import EdgeIndex
from nearcase.index.exact import ExactIndex
from nearcase.index.filters import And, Equals, Filter, Not
from nearcase.index.qdrant.index import QdrantIndex

if TYPE_CHECKING:
    from nearcase.types import Embedding

DIMENSION = 4
AXES: Embedding = np.eye(DIMENSION, dtype=np.float32)
EVERYTHING = Not(Equals("source", "nowhere"))


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[asyncio.Runner, EdgeIndex]]:
    with asyncio.Runner() as runner:
        made = runner.run(EdgeIndex.open(tmp_path_factory.mktemp("edge"), DIMENSION))
        yield runner, made
        runner.run(made.close())


@pytest.fixture
async def qdrant() -> AsyncIterator[QdrantIndex]:
    index = await in_memory()
    yield index
    await index.close()


@pytest.fixture
async def qdrant_live() -> AsyncIterator[QdrantIndex]:
    async with on_a_server() as index:
        yield index


@pytest.fixture(params=["exact", "edge", "qdrant", pytest.param("qdrant_live", marks=pytest.mark.qdrant_live)])
def index(request: pytest.FixtureRequest) -> Index:
    """An empty index; the engine's is one that other tests have used, because making it takes 0.3 s."""
    if request.param == "exact":
        return ExactIndex(DIMENSION)
    if request.param.startswith("qdrant"):
        made: QdrantIndex = request.getfixturevalue(request.param)
        return made
    runner, used = request.getfixturevalue("edge")
    runner.run(used.delete(EVERYTHING))
    assert isinstance(used, EdgeIndex)
    return used


def point(number: int, at: Embedding, **payload: object) -> Point:
    return Point(point_id(number), at, payload)  # type: ignore[arg-type]


def vector(*numbers: float) -> Embedding:
    return np.array(numbers, dtype=np.float32)


async def ids(index: Index, where: Filter | None = None) -> set[str]:
    return {record.point_id for record in (await index.scroll(limit=1000, where=where)).records}


async def test_what_was_stored_comes_back_as_it_was(index: Index) -> None:
    payload: Payload = {
        "modality": "CT",
        "age_years": 40.0,
        "study_date": 20150301,
        "labels": ["a=1", "b=ü"],
        "flag": True,
        "nothing": None,
        "count": 2**63 - 1,
        "nested": {"key with blank": "value\n"},
        "patient_key": "",
    }
    await index.upsert([Point(point_id(1), AXES[2], payload)])
    record = (await index.get([point_id(1)], with_vectors=True))[0]
    assert record.payload == payload
    assert isinstance(record.payload["age_years"], float)
    assert isinstance(record.payload["study_date"], int)
    assert record.vector is not None
    assert record.vector.dtype == np.float32
    np.testing.assert_array_equal(record.vector, AXES[2])


async def test_a_unit_vector_is_kept_bit_for_bit_and_another_is_made_one(index: Index) -> None:
    rng = np.random.default_rng(1)
    long = rng.normal(size=DIMENSION).astype(np.float32) * 1000
    unit = (long / np.linalg.norm(long)).astype(np.float32)
    await index.upsert([point(1, unit), point(2, long)])
    kept, made = await index.get([point_id(1), point_id(2)], with_vectors=True)
    assert kept.vector is not None
    assert made.vector is not None
    assert kept.vector.tobytes() == unit.tobytes()
    assert np.linalg.norm(made.vector) == pytest.approx(1, abs=1e-6)


async def test_search_orders_by_similarity_and_tells_the_cosine(index: Index) -> None:
    await index.upsert([point(n, vector(np.cos(n / 4), np.sin(n / 4), 0, 0), source=str(n)) for n in range(9)])
    found = await index.search(AXES[0] * 7, limit=4)
    assert [neighbour.payload["source"] for neighbour in found] == ["0", "1", "2", "3"]
    assert [n.similarity for n in found] == pytest.approx([np.cos(n / 4) for n in range(4)], abs=1e-6)
    assert all(-1 <= n.similarity <= 1 for n in found)


async def test_ties_are_in_the_order_of_ids_whatever_the_limit(index: Index) -> None:
    await index.upsert([point(n, AXES[0] if n else AXES[1]) for n in range(200)])
    tied = sorted(point_id(n) for n in range(1, 200))
    for limit in (1, 7, 100, 199, 200, 1000):
        found = [neighbour.point_id for neighbour in await index.search(AXES[0], limit=limit)]
        assert found == [*tied, point_id(0)][:limit]


async def test_without_leaves_payload_keys_out(index: Index) -> None:
    await index.upsert([point(1, AXES[0], thumbnail="/9j/", source="x", labels=["a=1"])])
    (neighbour,) = await index.search(AXES[0], limit=1, without=["thumbnail", "labels", "absent"])
    assert neighbour.payload == {"source": "x"}
    page = await index.scroll(limit=1, without=["thumbnail"])
    assert page.records[0].payload == {"source": "x", "labels": ["a=1"]}
    assert (await index.get([point_id(1)]))[0].payload["thumbnail"] == "/9j/"


async def test_upsert_replaces_vector_and_payload_whole(index: Index) -> None:
    await index.upsert([point(1, AXES[0], modality="CT", source="old")])
    await index.upsert([point(1, AXES[1], modality="MR")])
    assert await index.count() == 1
    assert await index.count(Equals("modality", "CT")) == 0
    assert (await index.get([point_id(1)]))[0].payload == {"modality": "MR"}
    assert (await index.search(AXES[1], limit=1))[0].similarity == pytest.approx(1)


async def test_of_one_id_twice_in_a_call_the_last_is_stored(index: Index) -> None:
    await index.upsert([point(1, AXES[0], source="first"), point(1, AXES[1], source="last")])
    assert [r.payload["source"] for r in await index.get([point_id(1)])] == ["last"]


async def test_nothing_in_nothing_out(index: Index) -> None:
    await index.upsert([])
    assert await index.search(AXES[0], limit=5) == []
    assert await index.get([]) == []
    assert await index.get([point_id(1)]) == []
    assert (await index.scroll(limit=5)).records == ()
    assert await index.count() == 0
    assert await index.facet("modality") == {}
    assert await index.delete(EVERYTHING) == 0


async def test_get_answers_in_the_order_asked_without_the_absent(index: Index) -> None:
    await index.upsert([point(n, AXES[0]) for n in range(20)])
    asked = [point_id(n) for n in (7, 99, 3, 19, 0, 3)]
    assert [record.point_id for record in await index.get(asked)] == [point_id(n) for n in (7, 3, 19, 0, 3)]
    assert (await index.get([point_id(1)]))[0].vector is None


async def test_scroll_visits_every_match_once_in_order(index: Index) -> None:
    await index.upsert([point(n, AXES[0], sex="F" if n % 3 else "M") for n in range(50)])
    seen: list[str] = []
    cursor = None
    while True:
        page = await index.scroll(limit=7, cursor=cursor, where=Equals("sex", "F"))
        seen += [record.point_id for record in page.records]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert seen == sorted(point_id(n) for n in range(50) if n % 3)


async def test_a_cursor_whose_point_was_deleted_still_goes_on(index: Index) -> None:
    await index.upsert([point(n, AXES[0], source=point_id(n)) for n in range(10)])
    page = await index.scroll(limit=5)
    assert page.next_cursor is not None
    await index.delete(Equals("source", page.next_cursor))
    rest = await index.scroll(limit=5, cursor=page.next_cursor)
    assert [r.point_id for r in rest.records] == sorted(point_id(n) for n in range(10))[6:]


async def test_facet_counts_points_not_values(index: Index) -> None:
    await index.upsert([point(n, AXES[0], labels=["a=1", "a=1", f"b={n % 2}"], sex="F") for n in range(5)])
    assert list((await index.facet("labels")).items()) == [("a=1", 5), ("b=0", 3), ("b=1", 2)]
    assert list((await index.facet("labels", limit=2)).items()) == [("a=1", 5), ("b=0", 3)]
    assert await index.facet("labels", where=Equals("labels", "b=1")) == {"a=1": 2, "b=1": 2}
    assert await index.facet("sex") == {"F": 5}


async def test_facet_orders_ties_by_value(index: Index) -> None:
    await index.upsert([point(n, AXES[0], source=f"site {n:02}") for n in range(40)])
    assert list(await index.facet("source", limit=7)) == [f"site {n:02}" for n in range(7)]


async def test_delete_takes_what_matches_and_nothing_else(index: Index) -> None:
    await index.upsert([point(n, AXES[0], patient_key=f"H|{n % 4}") for n in range(20)])
    assert await index.delete(Equals("patient_key", "H|1")) == 5
    assert await index.delete(Equals("patient_key", "H|1")) == 0
    assert await ids(index) == {point_id(n) for n in range(20) if n % 4 != 1}
    assert {n.point_id for n in await index.search(AXES[0], limit=50)} == await ids(index)


async def test_a_batch_of_searches_answers_as_each_alone(index: Index) -> None:
    await index.upsert([point(n, AXES[n % 3], sex="F" if n % 2 else "M") for n in range(20)])
    queries = [AXES[0], -AXES[1], AXES[2]]
    where = Equals("sex", "F")
    for exact in (False, True):
        found = await index.search_batch(queries, limit=4, where=where, without=["sex"], exact=exact)
        assert found == [await index.search(q, limit=4, where=where, without=["sex"], exact=exact) for q in queries]
    assert await index.search_batch([], limit=4) == []
    with pytest.raises(InvalidInput):
        await index.search_batch([AXES[0], AXES[0][:3]], limit=4)


async def test_scroll_gives_vectors_when_asked(index: Index) -> None:
    await index.upsert([point(n, AXES[n % 4]) for n in range(5)])
    stored = {point_id(n): AXES[n % 4] for n in range(5)}
    for record in (await index.scroll(limit=9, with_vectors=True)).records:
        np.testing.assert_array_equal(record.vector, stored[record.point_id])
    assert [r.vector for r in (await index.scroll(limit=9)).records] == [None] * 5


@pytest.mark.parametrize("kind", ["exact", "edge"])
async def test_erase_takes_the_named_points_that_exist_once_each(kind: str, tmp_path: Path) -> None:
    index: Index = ExactIndex(DIMENSION) if kind == "exact" else await EdgeIndex.open(tmp_path, DIMENSION)
    await index.upsert([point(n, AXES[0]) for n in range(10)])
    erased = await index.erase([point_id(1), point_id(99), point_id(1), point_id(7)])
    assert erased.point_count == 2
    assert await ids(index) == {point_id(n) for n in range(10) if n not in (1, 7)}
    assert (await index.erase([point_id(1)])).point_count == 0
    with pytest.raises(InvalidInput):
        await index.erase(["1"])
    await index.upsert([point(1, AXES[1])])
    assert await index.count() == 9
    await index.close()


async def test_state_counts_every_point_in_one_part(index: Index) -> None:
    await index.upsert([point(n, AXES[0]) for n in range(10)])
    state = await index.state()
    assert sum(part.point_count for part in state.parts) == 10
    assert state.is_exact
    assert state.damaged == ()


BAD_VECTORS = [
    AXES[0][:3],
    AXES[:1],
    vector(1, np.nan, 0, 0),
    vector(1, np.inf, 0, 0),
    np.zeros(DIMENSION, np.float32),
    vector(1e-20, 0, 0, 0),
]


@pytest.mark.parametrize("unfit", BAD_VECTORS, ids=["short", "matrix", "nan", "inf", "zero", "tiny"])
async def test_an_unfit_vector_is_refused_and_its_whole_call_with_it(index: Index, unfit: Embedding) -> None:
    await index.upsert([point(2, AXES[0], source="before")])
    with pytest.raises(InvalidInput):
        await index.upsert([point(1, AXES[1]), point(2, AXES[1], source="after"), point(3, unfit)])
    assert await ids(index) == {point_id(2)}
    assert (await index.get([point_id(2)]))[0].payload == {"source": "before"}
    with pytest.raises(InvalidInput):
        await index.search(unfit, limit=1)


@pytest.mark.parametrize(
    "payload",
    [
        {"modality": 5},
        {"age_years": "40"},
        {"age_years": [40.0, 50.0]},
        {"age_years": float("nan")},
        {"study_date": 20150301.0},
        {"labels": ["a=1", 2]},
        {"source": "\ud800"},
        {"free": float("inf")},
        {"free": 2**63},
        {"free": {"a": {"b": "c"}}},
        {"free": b"bytes"},
        {"free.key": "dots are paths"},
    ],
    ids=repr,
)
async def test_an_unfit_payload_is_refused_and_its_whole_call_with_it(index: Index, payload: dict[str, object]) -> None:
    with pytest.raises(InvalidInput) as refusal:
        await index.upsert([point(1, AXES[1]), point(2, AXES[0], **payload)])
    assert "\n" not in str(refusal.value)
    assert await index.count() == 0


async def test_what_can_not_be_asked_is_refused(index: Index) -> None:
    undeclared = Equals("thumbnail", "x")
    with pytest.raises(InvalidInput):
        await index.search(AXES[0], limit=0)
    with pytest.raises(InvalidInput):
        await index.search(AXES[0], limit=1, where=undeclared)
    with pytest.raises(InvalidInput):
        await index.search(AXES[0], limit=1, without=["a.b"])
    with pytest.raises(InvalidInput):
        await index.scroll(limit=0)
    with pytest.raises(InvalidInput):
        await index.scroll(limit=1, cursor="next")
    with pytest.raises(InvalidInput):
        await index.get(["1"])
    with pytest.raises(InvalidInput):
        await index.get([point_id(1).upper()])
    with pytest.raises(InvalidInput):
        await index.upsert([Point("1", AXES[0], {})])
    with pytest.raises(InvalidInput):
        await index.count(undeclared)
    with pytest.raises(InvalidInput):
        await index.facet("thumbnail")
    with pytest.raises(InvalidInput):
        await index.facet("age_years")
    with pytest.raises(InvalidInput):
        await index.delete(And(()))


@pytest.mark.parametrize("kind", ["exact", "edge", "qdrant"])
async def test_after_close_every_call_is_refused(kind: str, tmp_path: Path) -> None:
    index: Index = ExactIndex(DIMENSION)
    if kind != "exact":
        index = await (in_memory() if kind == "qdrant" else EdgeIndex.open(tmp_path, DIMENSION))
    await index.upsert([point(1, AXES[0])])
    await index.close()
    await index.close()
    for call in (
        index.upsert([point(2, AXES[0])]),
        index.search(AXES[0], limit=1),
        index.get([point_id(1)]),
        index.scroll(limit=1),
        index.count(),
        index.facet("sex"),
        index.delete(EVERYTHING),
    ):
        with pytest.raises(Unready):
            await call


async def test_callers_can_not_change_what_is_stored(index: Index) -> None:
    labels = ["a=1"]
    axis = AXES[0].copy()
    await index.upsert([point(1, axis, labels=labels)])
    labels.append("a=2")
    axis[:] = 9
    (record,) = await index.get([point_id(1)], with_vectors=True)
    assert record.payload == {"labels": ["a=1"]}
    assert record.vector is not None
    record.vector[:] = 9
    assert (await index.search(AXES[0], limit=1))[0].similarity == pytest.approx(1)


# The engine against the oracle: random points, random filters, every read.


async def _both_answer_the_same(edge: Index, stored: list[Point], asked: list[Filter], limit: int) -> None:
    exact = ExactIndex(DIMENSION)
    await edge.delete(EVERYTHING)
    for index in (exact, edge):
        await index.upsert(stored)
    for where in (None, *asked):
        for axis in (AXES[0], -AXES[1]):
            assert await edge.search(axis, limit=limit, where=where) == await exact.search(
                axis, limit=limit, where=where
            )
        assert await edge.count(where) == await exact.count(where)
        assert await edge.scroll(limit=limit, where=where) == await exact.scroll(limit=limit, where=where)
        facets = [await index.facet("labels", where=where, limit=limit) for index in (edge, exact)]
        assert list(facets[0].items()) == list(facets[1].items())
    assert await edge.delete(asked[0]) == await exact.delete(asked[0])
    assert await ids(edge) == await ids(exact)


@settings(max_examples=60)
@given(stored=points(DIMENSION), asked=st.lists(filters(), min_size=1, max_size=6), limit=st.integers(1, 15))
def test_the_engine_equals_the_oracle(
    edge: tuple[asyncio.Runner, EdgeIndex], stored: list[Point], asked: list[Filter], limit: int
) -> None:
    runner, index = edge
    runner.run(_both_answer_the_same(index, stored, asked, limit))
