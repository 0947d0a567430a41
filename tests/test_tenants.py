"""Tenants never see each other: in the index under every call, and through a real server under every RPC."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from pathlib import Path

import grpc
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from serving import scan, serving, serving_here
from strategies import filters, payloads, point_id

from nearcase.client import AddItem, Client
from nearcase.errors import InvalidInput, NotFound, Unready
from nearcase.index.base import Payload, Point
from nearcase.index.exact import ExactIndex
from nearcase.index.filters import Filter
from nearcase.index.tenant import TenantIndex
from nearcase.types import Case
from nearcase.v1 import library_pb2, library_pb2_grpc

NORTH, SOUTH = "north", "south"


def points(of: Sequence[Payload], first: int) -> list[Point]:
    rng = np.random.default_rng(first)
    return [Point(point_id(first + n), rng.normal(size=4).astype(np.float32), each) for n, each in enumerate(of)]


@given(st.lists(payloads(), max_size=5), st.lists(payloads(), max_size=5), filters())
@settings(max_examples=60)
def test_a_part_answers_as_an_index_of_its_own(mine: list[Payload], others: list[Payload], where: Filter) -> None:
    """The law: whatever lies beside it, a tenant's part gives what an index with the tenant's points alone gives."""

    async def both() -> None:
        shared, alone = ExactIndex(4), ExactIndex(4)
        part = TenantIndex(shared, NORTH)
        await TenantIndex(shared, SOUTH).upsert(points(others, 100))
        await part.upsert(points(mine, 0))
        await alone.upsert(points(mine, 0))
        names = [point_id(number) for number in (*range(5), *range(100, 105))]
        query = np.array([1.0, 0.0, 0.0, 0.0], np.float32)
        for asked in (where, None):
            hits = [each.point_id for each in await part.search(query, limit=9, where=asked)]
            assert hits == [each.point_id for each in await alone.search(query, limit=9, where=asked)]
            (batch,) = await part.search_batch([query], limit=9, where=asked)
            assert [each.point_id for each in batch] == hits
            assert await part.count(asked) == await alone.count(asked)
            assert await part.facet("modality", where=asked) == await alone.facet("modality", where=asked)
            page = await part.scroll(limit=3, where=asked)
            assert page.next_cursor == (await alone.scroll(limit=3, where=asked)).next_cursor
        assert [each.point_id for each in await part.get(names)] == [each.point_id for each in await alone.get(names)]
        assert sum(each.point_count for each in (await part.state()).parts) == len(mine)
        assert await part.delete(where) == await alone.delete(where)
        assert (await part.erase(names)).point_count == (await alone.erase(names)).point_count
        assert await shared.count() == len(others)

    asyncio.run(both())


async def test_an_id_of_another_tenant_is_not_overwritten() -> None:
    shared = ExactIndex(4)
    (point,) = points([{"modality": "CT"}], 0)
    await TenantIndex(shared, SOUTH).upsert([point])
    with pytest.raises(InvalidInput, match="taken"):
        await TenantIndex(shared, NORTH).upsert([point])
    assert await TenantIndex(shared, SOUTH).count() == 1


# Through a server


@pytest.mark.system
def test_no_call_shows_another_tenants_cases(tmp_path: Path) -> None:
    with (
        serving(tmp_path, "--settings", str(with_tenants(tmp_path))) as server,
        Client(server.address, tenant=NORTH) as north,
        Client(server.address, tenant=SOUTH) as south,
    ):
        mine, theirs = fill(north, "P1", 0), fill(south, "P1", 0)  # the very same images
        assert {case.case_id for case in mine}.isdisjoint(case.case_id for case in theirs)
        fill(south, "P2", 50)
        about = south.decide(scan(9, "P9")).decisions[0]
        for hit in north.search(scan(9, "P9"), k=50).hits:
            assert hit.case.case_id in {case.case_id for case in mine}
        assert (north.statistics().case_count, south.statistics().case_count) == (2, 4)
        assert north.statistics().size_bytes == 0
        assert [finding.labelled_count for finding in north.findings()] == [2]
        assert north.transfer.identity().snapshot != south.transfer.identity().snapshot
        assert {each.case.case_id for each in north.transfer.export()} == {case.case_id for case in mine}
        unseen(north, theirs[0], about.record_id)
        assert north.library.erase(patient_id="P2") == (0, None)
        assert north.erase(patient_id="P1") == 2
        assert {case.case_id for case in south.cases()} >= {case.case_id for case in theirs}
        assert [each.case_count for each in north.library.erasures()] == [2]
        assert list(south.library.erasures()) == []
        assert south.record(about.record_id)
    with pytest.raises(Unready, match="tenants"), serving(tmp_path):
        pass


def unseen(client: Client, case: Case, record_id: str) -> None:
    """Another's case and record are as absent as any."""
    for ask in (
        lambda: client.case(case.case_id),
        lambda: client.search(case_id=case.case_id),
        lambda: client.decide(case_id=case.case_id),
        lambda: client.library.update(case_id=case.case_id, labels={"mass": "9"}),
        lambda: client.library.merge("P2", "P2", stays_issuer="x"),
        lambda: client.record(record_id),
    ):
        with pytest.raises(NotFound):
            ask()


@pytest.mark.system
async def test_uploads_are_each_tenants_own(tmp_path: Path) -> None:
    data = scan(1)
    start = library_pb2.AddImagesStart(
        request_id="x", size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest(), data=data[:100]
    )
    asked = library_pb2.GetUploadRequest(request_id="x", sha256=start.sha256)
    async with serving_here(tmp_path, tenants="metadata") as app, grpc.aio.insecure_channel(app.address) as channel:
        stub = library_pb2_grpc.LibraryServiceStub(channel)
        stream = stub.AddImages(metadata=[("nearcase-tenant", NORTH)])
        await stream.write(library_pb2.AddImagesRequest(start=start))
        await stream.done_writing()
        assert [each async for each in stream] == []
        assert (await stub.GetUpload(asked, metadata=[("nearcase-tenant", NORTH)])).received_bytes == 100
        assert (await stub.GetUpload(asked, metadata=[("nearcase-tenant", SOUTH)])).received_bytes == 0


@pytest.mark.system
async def test_a_request_without_one_tenant_is_refused(tmp_path: Path) -> None:
    async with serving_here(tmp_path, tenants="metadata") as app, grpc.aio.insecure_channel(app.address) as channel:
        stub = library_pb2_grpc.LibraryServiceStub(channel)
        for names in ((), ("",), ("North",), ("a" * 65,), ("a b",), ("?",), ("a", "b")):
            metadata = [("nearcase-tenant", name) for name in names]
            calls = (
                stub.GetStatistics(library_pb2.GetStatisticsRequest(), metadata=metadata),
                stub.ExportCases(library_pb2.ExportCasesRequest(), metadata=metadata),
                stub.ImportCases(metadata=metadata),  # sends nothing: grpc.aio calls a refusal while it sends INTERNAL
            )
            for call in calls:
                assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT
                assert dict(await call.trailing_metadata())["nearcase-reason"] == "TENANT"


@pytest.mark.system
def test_a_server_without_tenants_takes_none(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        with Client(server.address, tenant=NORTH) as client, pytest.raises(InvalidInput, match="one tenant"):
            client.statistics()
        with Client(server.address) as client:
            fill(client, "P1", 0)
            with pytest.raises(InvalidInput):
                list(client.cases("tenant = north"))
    with pytest.raises(Unready, match="no tenant"), serving(tmp_path, "--settings", str(with_tenants(tmp_path))):
        pass


def with_tenants(folder: Path) -> Path:
    file = folder / "settings.toml"
    file.write_text('tenants = "metadata"\n')
    return file


def fill(client: Client, patient: str, seed: int) -> list[Case]:
    items = [AddItem(f"{patient}-{number}", scan(seed + number, patient), {"mass": "1"}) for number in range(2)]
    results = list(client.add(items))
    assert [result.outcome for result in results] == ["added"] * 2
    return [client.case(result.case_id) for result in results]
