"""What goes over the wire to a Qdrant server, and what comes of servers that fail."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qdrant_client import grpc as wire
from qdrant_indexes import AXES, in_memory, reached, some
from qdrant_server import QdrantServer
from strategies import point_id

from nearcase.errors import Unready
from nearcase.index.base import Point
from nearcase.index.exact import ExactIndex
from nearcase.index.fields import FIELDS
from nearcase.index.filters import And, Equals, Filter, In, Not, Or, Range
from nearcase.index.qdrant.identity import Identity
from nearcase.index.qdrant.index import BATCH, QdrantIndex
from nearcase.index.qdrant.layout import EXACT_UP_TO, LINKED, OF_ONE_IMAGE

EVERYTHING = Not(Equals("source", "nowhere"))


@pytest.fixture
async def server() -> AsyncIterator[QdrantServer]:
    server = QdrantServer()
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def index(server: QdrantServer) -> AsyncIterator[QdrantIndex]:
    index = await reached(server)
    yield index
    await index.close()


async def test_a_cluster_is_another_layout_of_the_same_requests(server: QdrantServer) -> None:
    index = await reached(
        server,
        qdrant_replicas=2,
        qdrant_quantization="int8",
        qdrant_on_disk=True,
        qdrant_collection="cases",
    )
    await index.close()
    made = server.created["cases"]
    assert (made.shard_number, made.replication_factor, made.write_consistency_factor) == (12, 2, 2)
    assert made.vectors_config.params.size == 4
    assert made.vectors_config.params.distance == wire.Distance.Dot
    assert made.vectors_config.params.on_disk
    assert made.quantization_config.scalar.type == wire.QuantizationType.Int8
    assert made.quantization_config.scalar.always_ram
    assert made.hnsw_config.full_scan_threshold * 1024 >= EXACT_UP_TO * 4 * 4
    assert made.strict_mode_config.enabled
    assert not made.strict_mode_config.unindexed_filtering_retrieve
    assert not made.strict_mode_config.unindexed_filtering_update
    assert made.metadata["nearcase_encoder_identity"].string_value == "one"
    on_disk = {
        field
        for field, request in server.schema["cases"].items()
        if request.field_index_params.keyword_index_params.on_disk
    }
    assert on_disk == OF_ONE_IMAGE
    beside = server.created["cases_state"]
    assert (beside.replication_factor, beside.write_consistency_factor) == (2, 2)


async def test_one_node_has_one_shard(server: QdrantServer, index: QdrantIndex) -> None:
    made = server.created["nearcase"]
    assert (made.shard_number, made.replication_factor, made.write_consistency_factor) == (1, 1, 1)
    assert not made.HasField("quantization_config")


async def test_every_field_is_indexed_before_the_first_vector(server: QdrantServer, index: QdrantIndex) -> None:
    declared = server.requests(wire.CreateFieldIndexCollection)
    assert {request.field_name for request in declared} == set(FIELDS)
    for request in declared:
        kind = request.field_index_params.WhichOneof("index_params")
        params = getattr(request.field_index_params, kind)
        assert (
            request.field_type
            == {
                "keyword_index_params": wire.FieldType.FieldTypeKeyword,
                "float_index_params": wire.FieldType.FieldTypeFloat,
                "integer_index_params": wire.FieldType.FieldTypeInteger,
            }[kind]
        )
        assert kind.removesuffix("_index_params").replace("float", "number") == FIELDS[request.field_name].value
        assert params.enable_hnsw is (request.field_name in LINKED)
        assert getattr(params, "is_tenant", False) is (request.field_name == "tenant")
    assert not [r for r in server.requests(wire.UpsertPoints) if r.collection_name == "nearcase"]


async def test_a_field_that_a_newer_version_declares_is_added(server: QdrantServer, index: QdrantIndex) -> None:
    del server.schema["nearcase"]["flags"]
    server.asked.clear()
    await (await reached(server)).close()
    assert [request.field_name for request in server.requests(wire.CreateFieldIndexCollection)] == ["flags"]
    assert not server.requests(wire.CreateCollection)


async def test_writes_wait_and_are_ordered(server: QdrantServer, index: QdrantIndex) -> None:
    server.asked.clear()
    await index.upsert(some(BATCH + 1, modality="CT"))
    upserts = server.requests(wire.UpsertPoints)
    assert [len(request.points) for request in upserts] == [BATCH, 1]
    assert all(request.wait and request.ordering.type == wire.WriteOrderingType.Medium for request in upserts)
    assert await index.delete(Equals("modality", "CT")) == BATCH + 1
    (deletion,) = server.requests(wire.DeletePoints)
    assert deletion.wait
    assert deletion.ordering.type == wire.WriteOrderingType.Strong
    assert await index.count() == 0


async def test_erasing_is_by_id_and_honest_about_files(server: QdrantServer, index: QdrantIndex) -> None:
    await index.upsert(some(3))
    server.asked.clear()
    erased = await index.erase([point_id(0), point_id(2), point_id(9), point_id(0)])
    assert (erased.point_count, erased.is_rewritten) == (2, False)
    (deletion,) = server.requests(wire.DeletePoints)
    assert deletion.ordering.type == wire.WriteOrderingType.Strong
    assert {point.uuid for point in deletion.points.points.ids} == {point_id(0), point_id(2)}
    assert await index.count() == 1


@pytest.mark.parametrize("how", ["delete", "erase"])
async def test_what_is_found_again_is_not_deleted(server: QdrantServer, index: QdrantIndex, how: str) -> None:
    await index.upsert(some(2))
    server.forgets_deletions = True
    with pytest.raises(Unready, match="found again"):
        await (index.delete(EVERYTHING) if how == "delete" else index.erase([point_id(1)]))
    assert len(server.requests(wire.DeletePoints)) == 3


LINKED_FILTER = And((Equals("modality", "CT"), Equals("tenant", "a")))


@pytest.mark.parametrize(
    ("about", "where", "is_exact", "has_acorn"),
    [
        (EXACT_UP_TO, LINKED_FILTER, True, False),
        (EXACT_UP_TO, Range("age_years", at_least=40), True, False),
        (EXACT_UP_TO + 1, None, False, False),
        (EXACT_UP_TO + 1, LINKED_FILTER, False, False),
        (EXACT_UP_TO + 1, Range("age_years", at_least=40), False, True),
        (EXACT_UP_TO + 1, And((Equals("modality", "CT"), Not(Equals("sex", "F")))), False, True),
    ],
)
async def test_the_number_of_candidates_decides_how_they_are_searched(
    server: QdrantServer, about: int, where: Filter | None, is_exact: bool, has_acorn: bool
) -> None:
    index = await reached(server, qdrant_quantization="4bit")
    server.about = about
    await index.search(AXES[0], limit=100, where=where, without=["thumbnail"])
    await index.search(AXES[0], limit=5, where=where, exact=True)
    await index.close()
    ours, exact = (request.query_points[0] for request in server.requests(wire.QueryBatchPoints))
    assert ours.params.exact is is_exact
    assert ours.params.acorn.enable is has_acorn
    if is_exact:
        assert ours.params.quantization.ignore
    else:
        assert ours.params.hnsw_ef == 200
        assert ours.params.quantization.rescore
        assert ours.params.quantization.oversampling == 2.0
    assert list(ours.with_payload.exclude.fields) == ["thumbnail"]
    assert not ours.with_vectors.enable
    assert exact.params.exact
    assert not exact.params.HasField("acorn")


async def test_facets_name_no_value_that_is_gone(index: QdrantIndex) -> None:
    await index.upsert(some(3, source="here"))
    assert await index.facet("source") == {"here": 3}


async def test_the_key_is_sent_from_its_file(server: QdrantServer, tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("a secret\n")
    file.chmod(0o600)
    await (await reached(server, qdrant_api_key=file)).close()
    assert all(sent["api-key"] == "a secret" for sent in server.metadata)
    file.chmod(0o604)
    with pytest.raises(Unready, match="every user"):
        await reached(server, qdrant_api_key=file)
    with pytest.raises(Unready, match="can not be read"):
        await reached(server, qdrant_api_key=tmp_path / "absent")


# Who may open it


@pytest.mark.parametrize(
    ("identity", "reason"),
    [
        (Identity(4, "other"), "ENCODER_MISMATCH"),
        (Identity(5, "one"), "ENCODER_MISMATCH"),
        (Identity(4, "one", "key"), "DEIDENTIFICATION_MISMATCH"),
    ],
)
async def test_a_library_of_others_is_refused(
    server: QdrantServer, index: QdrantIndex, identity: Identity, reason: str
) -> None:
    server.asked.clear()
    with pytest.raises(Unready) as refused:
        await reached(server, identity)
    assert refused.value.reason == reason
    assert not server.requests(wire.UpdateCollection)


async def test_a_layout_that_can_not_be_changed_is_refused(server: QdrantServer, index: QdrantIndex) -> None:
    with pytest.raises(Unready, match=r"Expected 6 shards .* got 1") as refused:
        await reached(server, qdrant_shards=6)
    assert refused.value.reason == "INDEX_LAYOUT"


@pytest.mark.parametrize("quantization", ["none", "int8", "4bit"])
async def test_the_same_settings_change_nothing(server: QdrantServer, quantization: str) -> None:
    for _ in range(2):
        await (await reached(server, qdrant_quantization=quantization, qdrant_replicas=2, qdrant_on_disk=True)).close()
    assert not server.requests(wire.UpdateCollection)
    assert len(server.requests(wire.CreateCollection)) == 2
    assert len(server.requests(wire.CreateFieldIndexCollection)) == len(FIELDS)


async def test_a_layout_that_can_be_changed_follows_the_settings(server: QdrantServer, index: QdrantIndex) -> None:
    changed: dict[str, Any] = {"qdrant_quantization": "int8", "qdrant_strict": False, "qdrant_on_disk": True}
    await (await reached(server, qdrant_shards=1, qdrant_replicas=3, **changed)).close()
    (update,) = server.requests(wire.UpdateCollection)
    assert (update.params.replication_factor, update.params.write_consistency_factor) == (3, 2)
    assert update.quantization_config.scalar.always_ram
    assert not update.strict_mode_config.enabled
    assert update.vectors_config.params.on_disk


async def test_a_collection_of_another_program_is_refused(server: QdrantServer, index: QdrantIndex) -> None:
    server.created["nearcase"].ClearField("metadata")
    with pytest.raises(Unready, match="another program"):
        await reached(server)


async def test_two_servers_that_start_at_once_make_one_collection(server: QdrantServer) -> None:
    both = await asyncio.gather(*(reached(server) for _ in range(4)))
    await both[0].upsert(some(1))
    assert [await one.count() for one in both] == [1] * 4
    assert len({await one.generation() for one in both}) == 1
    for one in both:
        await one.close()


async def test_state_tells_a_shared_collection(index: QdrantIndex) -> None:
    await index.upsert(some(2))
    state = await index.state()
    assert (state.tier, state.is_shared, state.is_exact, state.is_building, state.damaged) == (
        "qdrant",
        True,
        True,
        False,
        (),
    )
    assert [(part.name, part.kind, part.point_count) for part in state.parts] == [("nearcase", "collection", 2)]


async def test_ties_beyond_the_first_page_are_settled_by_id() -> None:
    index = await in_memory()
    await index.upsert([Point(point_id(n), AXES[0], {}) for n in range(300)])
    found = await index.search_batch([AXES[0], AXES[1]], limit=5)
    expected = sorted(point_id(n) for n in range(300))[:5]
    assert [[one.point_id for one in ranked] for ranked in found] == [expected, expected]
    await index.close()


async def test_random_points_are_found_as_the_oracle_finds_them() -> None:
    rng = np.random.default_rng(7)
    vectors = rng.normal(size=(200, 4)).astype(np.float32)
    stored = [
        Point(point_id(n), v, {"sex": "FMO"[n % 3], "age_years": float(n), "labels": [f"a={n % 5}", "b=1"]})
        for n, v in enumerate(vectors)
    ]
    exact, qdrant = ExactIndex(4), await in_memory()
    for index in (exact, qdrant):
        await index.upsert(stored)
    where = And((In("sex", ("F", "M")), Or((Range("age_years", below=120), Not(Equals("labels", "a=1"))))))
    queries = list(rng.normal(size=(70, 4)).astype(np.float32))  # more than go into one message
    for limit, chosen in ((1, None), (10, where), (500, where)):
        expected = await exact.search_batch(queries, limit=limit, where=chosen)
        found = await qdrant.search_batch(queries, limit=limit, where=chosen)
        assert [[n.point_id for n in one] for one in found] == [[n.point_id for n in one] for one in expected]
        assert await qdrant.search(queries[3], limit=limit, where=chosen, exact=True) == found[3]
    pages = [await index.scroll(limit=30, where=where, with_vectors=True) for index in (exact, qdrant)]
    for one, other in zip(pages[0].records, pages[1].records, strict=True):
        assert (one.point_id, one.payload) == (other.point_id, other.payload)
        assert one.vector is not None
        assert other.vector is not None
        assert one.vector.tobytes() == other.vector.tobytes()
    gone = [point.point_id for point in stored[::3]]
    assert (await qdrant.erase(gone)).point_count == (await exact.erase(gone)).point_count == len(gone)
    assert (await qdrant.erase(gone)).point_count == 0
    assert await qdrant.count() == await exact.count() == 200 - len(gone)
    await qdrant.close()
