"""Recall that is watched: the check finds what an index forgets, and everybody who asks is told."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest
from click.testing import CliRunner
from grpc_health.v1 import health_pb2, health_pb2_grpc
from serving import serving_here

from nearcase.cli.app import group
from nearcase.clock import SystemClock
from nearcase.errors import InvalidInput
from nearcase.index.base import IndexState, Neighbour, Part, Point
from nearcase.index.exact import ExactIndex
from nearcase.index.filter_text import parse
from nearcase.index.filters import Filter
from nearcase.retrieve.recall import Sample, check_recall, recall_of
from nearcase.serve.health import RECALL, SERVICES
from nearcase.serve.recall import RecallWatch, to_sample
from nearcase.types import RecallReport, RecallRow
from nearcase.v1 import library_pb2

if TYPE_CHECKING:
    from nearcase.types import Embedding

DIMENSION = 16
STATUS = health_pb2.HealthCheckResponse


class Forgetful(ExactIndex):
    """Says that it has a graph, and misses the nearest `forgotten` points of every search that is not exact."""

    def __init__(self, forgotten: int, *, under_filters_only: bool = False) -> None:
        super().__init__(DIMENSION)
        self.forgotten, self.under_filters_only = forgotten, under_filters_only
        self.searches = 0

    async def search(
        self,
        vector: Embedding,
        *,
        limit: int,
        where: Filter | None = None,
        without: Sequence[str] = (),
        exact: bool = False,
    ) -> list[Neighbour]:
        """The point itself is found; what it misses comes after."""
        self.searches += 1
        missed = 0 if exact or (self.under_filters_only and where is None) else self.forgotten
        found = await super().search(vector, limit=limit + missed, where=where, without=without)
        own = [each for each in found if each.similarity > 0.9999]
        return [*own, *found[len(own) + missed :]][:limit]

    async def state(self) -> IndexState:
        """One part with a graph."""
        return IndexState("memory", (Part("000001", "sealed", await self.count(), False),))


def points(count: int, seed: int = 0) -> list[Point]:
    rng = np.random.default_rng(seed)
    made = []
    for number in range(count):
        vector = rng.normal(size=DIMENSION)
        payload: dict[str, Any] = {
            "modality": "CT" if number % 3 else "MR",
            "body_part": "CHEST" if number % 2 else "HEAD",
            "sex": "MF"[number % 2],
            "age_years": float(number % 90),
        }
        unit = (vector / np.linalg.norm(vector)).astype(np.float32)
        made.append(Point(str(uuid.UUID(int=rng.integers(2**62).item() << 66)), unit, payload))
    return made


async def filled(index: ExactIndex, count: int = 300) -> ExactIndex:
    await index.upsert(points(count))
    return index


@pytest.mark.parametrize(
    ("found", "exact", "expected"),
    [
        ([0.9, 0.8], [0.9, 0.8], 1.0),
        ([0.9], [0.9, 0.8], 0.5),
        ([0.9, 0.7], [0.9, 0.8], 0.5),
        ([], [0.9, 0.8], 0.0),
        ([0.8, 0.8], [0.8, 0.8], 1.0),  # of three that tie, either two
        ([0.9, 0.8, 0.8], [0.9, 0.8], 1.0),
    ],
)
def test_recall_counts_neighbours_as_similar_as_the_last_exact_one(
    found: list[float], exact: list[float], expected: float
) -> None:
    assert recall_of(found, exact) == pytest.approx(expected)


@pytest.mark.parametrize("forgotten", [0, 1, 4])
async def test_the_check_measures_what_the_index_forgets(forgotten: int) -> None:
    index = await filled(Forgetful(forgotten))
    report = await check_recall(index, Sample(cases=20, k=10), now_s=7.0)
    assert report.checked_at_s == 7.0
    assert not report.is_exact
    assert {row.sample_count for row in report.rows} == {20}
    for row in report.rows:
        assert row.recall == pytest.approx(1 - forgotten / 10), row.where


async def test_recall_that_is_lost_under_filters_alone_is_seen() -> None:
    report = await check_recall(await filled(Forgetful(5, under_filters_only=True)), Sample(cases=10), now_s=0.0)
    without, *under = report.rows
    assert without.where == ""
    assert without.recall == 1.0
    assert under
    assert all(row.recall == pytest.approx(0.5) for row in under)
    assert report.worst == pytest.approx(0.5)


async def test_filters_are_the_common_values_an_age_band_and_two_fields_and_can_be_typed_again() -> None:
    index = await filled(Forgetful(0))
    report = await check_recall(index, Sample(cases=10), now_s=0.0)
    texts = [row.where for row in report.rows]
    assert len(texts) == len(set(texts)) == 6
    for row in report.rows:
        where = parse(row.where) if row.where else None
        assert row.candidate_count == await index.count(where)
    for field in ("modality", "body_part", "sex", "age_years"):
        assert any(field in text for text in texts)
    assert any("modality" in text and "age_years" in text for text in texts)


async def test_an_exact_index_is_not_searched_to_learn_what_is_so_by_construction() -> None:
    index = await filled(ExactIndex(DIMENSION))
    report = await check_recall(index, Sample(), now_s=0.0)
    assert report.is_exact
    assert report.worst == 1.0
    assert {row.sample_count for row in report.rows} == {0}
    assert report.rows[0].candidate_count == 300


async def test_an_empty_library_has_nothing_to_miss() -> None:
    report = await check_recall(Forgetful(3), Sample(), now_s=0.0)
    assert [(row.where, row.candidate_count, row.sample_count) for row in report.rows] == [("", 0, 0)]
    assert report.worst == 1.0


@pytest.mark.parametrize("count", [1, 2, 12])
async def test_a_library_smaller_than_the_sample_is_tried_whole(count: int) -> None:
    report = await check_recall(await filled(Forgetful(0), count), Sample(cases=50), now_s=0.0)
    assert report.rows[0].sample_count == (count if count > 1 else 0)  # one case has no neighbours


async def test_the_sample_is_spread_over_the_library_and_repeatable() -> None:
    index = await filled(Forgetful(0), 1000)
    order = {point.point_id: rank for rank, point in enumerate(sorted(points(1000), key=lambda p: p.point_id))}
    drawn: list[list[int]] = []

    class Watching(Forgetful):
        async def get(self, point_ids: Sequence[str], *, with_vectors: bool = False) -> Any:
            drawn.append([order[point_id] for point_id in point_ids])
            return await super().get(point_ids, with_vectors=with_vectors)

    watching = await filled(Watching(0), 1000)
    for seed in ("a", "a", "b"):
        await check_recall(watching, Sample(cases=60, seed=seed), now_s=0.0)
    assert drawn[0] == drawn[1] != drawn[2]
    assert len(set(drawn[0])) == 60
    assert 350 < float(np.mean(drawn[0])) < 650
    assert min(drawn[0]) < 150 < 850 < max(drawn[0])
    await index.close()


async def test_the_watch_says_what_is_low_and_logs_no_value_of_a_case(caplog: pytest.LogCaptureFixture) -> None:
    index = Forgetful(5)
    await filled(index)
    watch = RecallWatch(index, SystemClock(), every_hours=24.0)
    said = [watch.is_low]
    for index.forgotten in (5, 0):
        await watch.check(Sample(cases=10))
        said.append(watch.is_low)
    assert said == [False, True, False]
    assert "0.500" in caplog.text
    assert "CHEST" not in caplog.text
    assert "CT" not in caplog.text


async def test_the_watch_checks_again_when_a_part_was_sealed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nearcase.serve.recall.FIRST_CHECK_S", 0.0)
    monkeypatch.setattr("nearcase.serve.recall.LOOK_EVERY_S", 0.01)
    monkeypatch.setattr("nearcase.serve.recall.REST", 0.0)
    index = Forgetful(0)
    await index.upsert(points(40))
    parts = [Part("000001", "sealed", 40, False)]

    async def state() -> IndexState:
        return IndexState("edge", tuple(parts))

    monkeypatch.setattr(index, "state", state)
    watch = RecallWatch(index, SystemClock(), every_hours=24.0)
    watch.start()
    await _until(lambda: watch.last is not None)
    first = watch.last
    await asyncio.sleep(0.1)
    assert watch.last is first
    parts.append(Part("000002", "sealed", 0, False))
    await _until(lambda: watch.last is not first)
    await watch.stop()


async def test_the_watch_survives_an_index_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nearcase.serve.recall.FIRST_CHECK_S", 0.0)
    monkeypatch.setattr("nearcase.serve.recall.LOOK_EVERY_S", 0.01)
    index = await filled(Forgetful(0), 30)
    stored, index._points = index._points, None  # as after `close`: every call is refused
    watch = RecallWatch(index, SystemClock(), every_hours=24.0)
    watch.start()
    await asyncio.sleep(0.05)
    assert watch.last is None
    index._points = stored
    await _until(lambda: watch.last is not None)
    await watch.stop()


async def _until(is_so: Any) -> None:
    async with asyncio.timeout(10):
        while not is_so():
            await asyncio.sleep(0.005)


async def test_a_tenants_report_is_neither_kept_nor_shown_the_report_of_all() -> None:
    whole, own = await filled(Forgetful(5)), await filled(Forgetful(1))
    watch = RecallWatch(whole, SystemClock(), every_hours=24.0)
    assert (await watch.check_now(Sample(cases=10), own)).worst == pytest.approx(0.9)
    assert watch.last is None
    await watch.check_now(Sample(cases=10), whole)
    assert watch.known_to(own) is None
    assert watch.known_to(whole) is watch.last is not None


@pytest.mark.parametrize("given", [{"sample_count": 9}, {"sample_count": 1001}, {"k": 101}, {"k": -1}])
def test_numbers_out_of_range_are_refused(given: dict[str, int]) -> None:
    with pytest.raises(InvalidInput):
        to_sample(library_pb2.CheckRecallRequest(**given))


LOW = RecallReport((RecallRow("", 100, 0.99, 50), RecallRow("modality = CT", 60, 0.2, 50)), 10, 1.0, False)


@pytest.mark.system
async def test_low_recall_is_told_and_the_services_go_on(tmp_path: Path) -> None:
    async with serving_here(tmp_path) as app, grpc.aio.insecure_channel(app.address) as channel:
        health = health_pb2_grpc.HealthStub(channel)

        async def status(service: str) -> int:
            answer = await health.Check(health_pb2.HealthCheckRequest(service=service))
            return int(answer.status)

        assert await status(RECALL) == STATUS.UNKNOWN
        app.engine.recall.last = LOW
        await app.health._check()
        assert await status(RECALL) == STATUS.NOT_SERVING
        assert {await status(service) for service in SERVICES} == {STATUS.SERVING}
        result = await asyncio.to_thread(CliRunner().invoke, group, ["check", "--server", app.address])
        assert result.exit_code == 1
        assert "recall@10 0.200" in result.output
        app.engine.recall.last = replace(LOW, rows=LOW.rows[:1])
        await app.health._check()
        assert await status(RECALL) == STATUS.SERVING


@pytest.mark.system
async def test_the_command_prints_the_table_and_ends_with_1_when_recall_is_low(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving_here(tmp_path) as app:
        arguments = ["library", "recall-check", "--samples", "20", "--server", app.address]
        result = await asyncio.to_thread(CliRunner().invoke, group, arguments)
        assert result.exit_code == 0, result.output
        assert "exact by construction" in result.output
        lossy = await filled(Forgetful(5))
        monkeypatch.setattr("nearcase.serve.engine.Engine.index", lossy)
        result = await asyncio.to_thread(CliRunner().invoke, group, arguments)
        assert result.exit_code == 1
        assert "0.500" in result.output
        assert "LOW" in result.output
        as_json = await asyncio.to_thread(CliRunner().invoke, group, [*arguments, "--json"])
        assert as_json.exit_code == 1
        assert '"ok": false' in as_json.output
