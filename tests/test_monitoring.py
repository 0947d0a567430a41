"""What a real server tells a monitoring system, and that the dashboard and the alerts ask for nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import shutil
import socket
import threading
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import promql_parser
import pytest
import yaml
from decisions import group as whole_group
from made_library import POINT, declare, fill, finding_text, fitted_on, made_cases, reference_of
from prometheus_client.parser import text_string_to_metric_families
from serving import scan, serving_here

import nearcase.serve.metrics as metrics_module
from nearcase.errors import Unready
from nearcase.serve.app import App
from nearcase.serve.health import SERVICES
from nearcase.serve.metrics import MetricsPort, make_metrics
from nearcase.v1 import decision_pb2 as d
from nearcase.v1 import decision_pb2_grpc, search_pb2_grpc
from nearcase.v1 import search_pb2 as s
from nearcase.v1.types_pb2 import FileChunk

FILES = Path(__file__).parents[1] / "helm" / "nearcase" / "files"
ALERTS = yaml.safe_load((FILES / "alerts.yaml").read_text())
DASHBOARD = json.loads((FILES / "dashboard.json").read_text())
FREE = "127.0.0.1:0"
LEFT_OUT = {"up"}
"""A metric that Prometheus makes itself."""
OF_TARGETS = {"job", "instance", "namespace", "service", "pod", "container", "endpoint", "node"}
"""Labels that Prometheus and its operator add: of the same name, ours would arrive as exported_... ."""
LATER = {"nearcase_recall", "nearcase_recall_checked_seconds"}
"""Shown after the first check of recall, five minutes after the start."""


def expressions() -> Iterator[tuple[str, str]]:
    for group in ALERTS["groups"]:
        for rule in group["rules"]:
            yield rule["alert"], rule["expr"]
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]


def selectors(expression: Any) -> Iterator[Any]:
    """Every vector that a parsed expression reads."""
    if isinstance(expression, promql_parser.VectorSelector):
        yield expression
    for name in ("expr", "lhs", "rhs", "vector_selector", "vs"):
        inner = getattr(expression, name, None)
        if inner is not None:
            yield from selectors(inner)
    for inner in getattr(expression, "args", ()):
        yield from selectors(inner)


async def scrape(app: App) -> dict[str, list[tuple[dict[str, str], float]]]:
    url = f"http://{app.metrics.address}/metrics"
    text = await asyncio.to_thread(lambda: urllib.request.urlopen(url, timeout=10).read().decode())
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
        found.setdefault(family.name, [])
    return found


def value(found: dict[str, list[tuple[dict[str, str], float]]], name: str, **labels: str) -> float:
    return sum(number for have, number in found[name] if labels.items() <= have.items())


def test_every_expression_is_promql() -> None:
    for _, expression in expressions():
        promql_parser.parse(expression)


def test_every_alert_says_what_it_means_and_is_in_the_manual() -> None:
    manual = (FILES.parents[2] / "docs" / "monitoring.md").read_text("utf-8")
    for group in ALERTS["groups"]:
        for rule in group["rules"]:
            assert rule["annotations"]["summary"].endswith(".")
            assert rule["labels"]["severity"] in ("warning", "critical")
            assert f"`{rule['alert']}`" in manual


def panel_metrics() -> set[str]:
    parsed = (promql_parser.parse(target["expr"]) for panel in DASHBOARD["panels"] for target in panel["targets"])
    return {str(selector.name) for each in parsed for selector in selectors(each)}


def test_no_server_at_all_is_an_alert() -> None:
    (rule,) = [rule for group in ALERTS["groups"] for rule in group["rules"] if rule["alert"] == "NearcaseDown"]
    either = promql_parser.parse(rule["expr"])
    assert isinstance(either, promql_parser.BinaryExpr)
    assert str(either.op) == "or"
    assert isinstance(either.rhs, promql_parser.Call)
    assert either.rhs.func.name == "absent"
    assert [selector.name for selector in selectors(either.rhs)] == ["nearcase_serving"]  # whatever the job's name is


def test_panels_have_ids_and_places_of_their_own() -> None:
    places = [panel["gridPos"] for panel in DASHBOARD["panels"]]
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(places)
    cells = [
        (x, y) for at in places for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])
    ]
    assert len(cells) == len(set(cells))


@pytest.mark.system
async def test_the_files_name_only_metrics_and_labels_that_a_server_shows(library: Path) -> None:
    async with busy(library) as app:
        found = await scrape(app)
    manual = (FILES.parents[2] / "docs" / "monitoring.md").read_text("utf-8")
    for where, expression in expressions():
        for selector in selectors(promql_parser.parse(expression)):
            name = selector.name or re.match(r"[a-z_]+", str(selector)).group()  # type: ignore[union-attr]
            if name in LEFT_OUT:
                continue
            assert name in found, f"{where}: {name}"
            labels = {label for have, _ in found[name] for label in have}
            for matcher in selector.matchers.matchers:
                assert matcher.name in labels, f"{where}: {name}{{{matcher.name}}}"
    for name, samples in found.items():
        assert not {label for have, _ in samples for label in have} & OF_TARGETS, name
    trail = {name for name, samples in found.items() if name.startswith("nearcase_audit_") and samples}
    assert {name for name in trail if not name.endswith("_created")} <= panel_metrics()
    for name in found:
        base = re.sub(r"_(bucket|count|sum|created|total)$", "", name)
        assert f"`{base}" in manual, base


@pytest.mark.system
async def test_counts_are_what_was_done(library: Path) -> None:
    async with busy(library) as app:
        found = await scrape(app)
    assert value(found, "nearcase_requests_total", rpc="v1.SearchService/Search", code="OK") == 3
    assert value(found, "nearcase_requests_total", rpc="v1.SearchService/Search", code="INVALID_ARGUMENT") == 1
    assert value(found, "nearcase_requests_total", rpc="v1.SearchService/SearchStream", code="OK") == 1
    assert value(found, "nearcase_refused_requests_total", reason="FILE_TOO_LARGE") == 1
    for stage in ("receive", "decode", "queue", "encode", "search", "decide"):
        assert value(found, "nearcase_stage_seconds_count", stage=stage) >= 1, stage
    assert value(found, "nearcase_stage_seconds_count", stage="decode", work="asking") == 4
    assert value(found, "nearcase_decisions_total", finding="mass") == 111
    assert value(found, "nearcase_decisions_total", finding="undeclared") >= 1
    assert value(found, "nearcase_abstentions_total", reason="SCOPE_NARROWED") == 1
    assert value(found, "nearcase_library_cases") == 400
    assert value(found, "nearcase_runtime_info", fallback="false") == 1
    assert value(found, "nearcase_encoder_batch_size_count") >= 4
    assert value(found, "nearcase_score_drift", finding="mass") < 0.2
    assert value(found, "nearcase_decision_patients_total", attribute="sex") == 111
    assert value(found, "nearcase_group_drift", finding="mass", attribute="sex") < 0.01
    assert value(found, "nearcase_in_progress") == 0
    assert value(found, "nearcase_bytes_in_flight") == 0
    room = shutil.disk_usage(library).total
    assert 0 < value(found, "nearcase_audit_free_bytes") <= room
    assert {have["part"] for have, _ in found["nearcase_serving"]} == set(SERVICES)


@pytest.mark.system
async def test_a_port_that_is_taken_stops_the_start(tmp_path: Path) -> None:
    async with serving_here(tmp_path / "first", metrics_listen=FREE) as app:
        with pytest.raises(Unready, match="metrics"):
            async with serving_here(tmp_path / "second", metrics_listen=app.metrics.address):
                pass


def serving_threads() -> int:
    return sum("process_request_thread" in each.name for each in threading.enumerate())


def test_half_a_request_for_metrics_holds_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither one that falls silent nor one that sends a byte now and then."""
    monkeypatch.setattr(metrics_module, "CONNECTION_S", 1.5)
    port = MetricsPort()
    port.start(FREE, make_metrics().registry)
    host, _, number = port.address.rpartition(":")
    with contextlib.ExitStack() as stack:
        stack.callback(port.stop)
        halves = [stack.enter_context(socket.create_connection((host, int(number)), timeout=10)) for _ in range(4)]
        for each in halves:
            each.sendall(b"GET /metrics HTTP/1.1\r\nX-Slow: ")
        time.sleep(0.5)
        assert serving_threads() == 4
        with contextlib.suppress(OSError):
            for _ in range(30):
                halves[0].sendall(b"x")
                time.sleep(0.1)
        assert [each.recv(1) for each in halves[1:]] == [b""] * 3
        assert serving_threads() == 0
        with urllib.request.urlopen(f"http://{port.address}/metrics", timeout=10) as answer:
            assert b"nearcase_refused_requests" in answer.read()


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library with a fitted finding beside it."""
    folder = tmp_path_factory.mktemp("monitored")
    fill(folder, made_cases())
    text = finding_text("mass", POINT)
    groups = (whole_group("sex", "F"), whole_group("sex", "M"))
    declare(folder / "findings", text, replace(fitted_on(reference_of(folder, text), text), groups=groups))
    return folder


@asynccontextmanager
async def busy(folder: Path) -> AsyncIterator[App]:
    """A server that has searched, decided, refused and abstained."""
    async with (
        serving_here(folder, metrics_listen=FREE, findings=folder / "findings") as app,
        grpc.aio.insecure_channel(app.address) as channel,
    ):
        await ask(channel)
        yield app


async def ask(channel: grpc.aio.Channel) -> None:
    search = search_pb2_grpc.SearchServiceStub(channel)
    for seed in range(3):
        await search.Search(s.SearchRequest(examples=[s.Example(image=scan(seed))]))
    data = scan(9)
    start = s.SearchStreamStart(size_bytes=len(data), options=s.SearchOptions(with_timings=True))
    chunk = s.SearchStreamRequest(chunk=FileChunk(offset_bytes=0, data=data))
    answer = await search.SearchStream(iter([s.SearchStreamRequest(start=start), chunk]))
    timings = answer.response.timings
    assert 0 < timings.receive_ms < timings.total_ms
    with pytest.raises(grpc.aio.AioRpcError):
        await search.Search(s.SearchRequest())
    start.size_bytes = 2**40
    with pytest.raises(grpc.aio.AioRpcError):
        await search.SearchStream(iter([s.SearchStreamRequest(start=start)]))
    decide = decision_pb2_grpc.DecisionServiceStub(channel)
    for case, _ in made_cases()[2:112]:
        await decide.Decide(d.DecideRequest(case_id=case.case_id, options=d.DecideOptions(finding="mass", filter="")))
    await decide.Decide(d.DecideRequest(case_id=case.case_id, options=d.DecideOptions(filter="sex = F")))
