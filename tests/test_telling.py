"""Traces, log lines and metrics of real requests: whole, below the caller's span, and with nothing of a patient."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from made_library import POINT, finding_text
from serving import scan, serving_here

from nearcase.errors import InvalidInput
from nearcase.serve.logs import JsonLines, TextLines, hashed
from nearcase.serve.trail import MOST_STAGES, Stage, Trail
from nearcase.settings_file import read_settings
from nearcase.v1 import decision_pb2 as d
from nearcase.v1 import decision_pb2_grpc, library_pb2_grpc, search_pb2_grpc
from nearcase.v1 import library_pb2 as lib
from nearcase.v1 import search_pb2 as s

MARKS = ("ZZMARKZZ", "19991231", "1.2.3.4.987654321")
"""In the patient's name and id, a date, and a UID."""
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def marked(seed: int) -> bytes:
    return scan(
        seed,
        MARKS[0],
        PatientName=f"{MARKS[0]}^Ann",
        StudyDate=MARKS[1],
        PatientBirthDate=MARKS[1],
        SOPInstanceUID=f"{MARKS[2]}.{seed + 1}",
        AccessionNumber=MARKS[0],
    )


@pytest.mark.system
async def test_traces_log_and_metrics_of_marked_patients_name_nobody(tmp_path: Path) -> None:
    (tmp_path / "findings").mkdir()
    (tmp_path / "findings" / "mass.toml").write_text(finding_text("mass").replace(POINT, ""))
    settings = {"metrics_listen": "127.0.0.1:0", "slow_request_ms": 0.001, "tenants": "metadata"}
    with lines() as log:
        async with (
            receiving() as (endpoint, spans),
            serving_here(tmp_path, otlp_endpoint=endpoint, **settings) as app,
            grpc.aio.insecure_channel(app.address) as channel,
        ):
            await ask(channel)
            url = f"http://{app.metrics.address}/metrics"
            metrics = await asyncio.to_thread(lambda: urllib.request.urlopen(url, timeout=10).read().decode())
    told = {"metrics": metrics, "log": log.getvalue(), "spans": "\n".join(str(span) for span in spans)}
    for where, text in told.items():
        assert len(text) > 500, where
        for mark in (*MARKS, "tenant-zz"):
            assert mark not in text, (where, mark)
    check_lines(log.getvalue())
    check_spans(spans)


async def ask(channel: grpc.aio.Channel) -> None:
    """Adds, searches, decides and is refused, for a marked patient of a marked tenant."""
    metadata = (
        ("nearcase-tenant", "tenant-zz"),
        ("traceparent", f"00-{TRACE}-{PARENT}-01"),
        ("tracestate", f"who={MARKS[0]}"),
    )
    files = {f"{MARKS[0]}{seed}": marked(seed) for seed in (1, 2)}
    starts = [lib.AddImagesStart(request_id=name, size_bytes=len(file), data=file) for name, file in files.items()]
    starts[0].annotations.labels["mass"] = MARKS[0]
    library = library_pb2_grpc.LibraryServiceStub(channel)
    calls = library.AddImages(iter([lib.AddImagesRequest(start=start) for start in starts]), metadata=metadata)
    assert [answer.WhichOneof("result") async for answer in calls] == ["added", "added"]
    search = search_pb2_grpc.SearchServiceStub(channel)
    options = s.SearchOptions(filter=f'source != "{MARKS[0]}x"')
    await search.Search(s.SearchRequest(examples=[s.Example(image=marked(3))], options=options), metadata=metadata)
    for wrong in (b"DICM" + MARKS[0].encode(), marked(3)[:700], b""):
        with pytest.raises(grpc.aio.AioRpcError):
            await search.Search(s.SearchRequest(examples=[s.Example(image=wrong)]), metadata=metadata)
    with pytest.raises(grpc.aio.AioRpcError):
        await search.Search(s.SearchRequest(examples=[s.Example(instance_uid=MARKS[2])]), metadata=metadata)
    decide = decision_pb2_grpc.DecisionServiceStub(channel)
    await decide.Decide(d.DecideRequest(image=marked(4)), metadata=metadata)


def check_lines(log: str) -> None:
    slow = [line for line in map(json.loads, log.splitlines()) if line["message"].startswith("slow request")]
    assert {line["rpc"] for line in slow} >= {"v1.SearchService/Search", "v1.DecisionService/Decide"}
    assert {line["tenant"] for line in slow} == {hashed("tenant-zz")}
    assert all(line["message"].endswith(f", tenant {hashed('tenant-zz')}") for line in slow)  # for lines of text too
    assert any({"decode", "queue", "encode", "search"} <= line["stages_ms"].keys() for line in slow)


def check_spans(spans: list[Any]) -> None:
    requests = [span for span in spans if span.name == "v1.SearchService/Search"]
    assert len(requests) == 5
    for span in requests:
        assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, PARENT)
        assert not span.trace_state
    whole = max(requests, key=lambda span: sum(each.parent_span_id == span.span_id for each in spans))
    below = [span for span in spans if span.parent_span_id == whole.span_id]
    parts = sorted(below, key=lambda span: (span.start_time_unix_nano, span.end_time_unix_nano))
    assert [part.name for part in parts] == ["decode", "queue", "encode", "search"]
    slack_ns = 5_000_000
    for part in parts:
        assert whole.start_time_unix_nano - slack_ns <= part.start_time_unix_nano <= part.end_time_unix_nano
        assert part.end_time_unix_nano <= whole.end_time_unix_nano + slack_ns


@asynccontextmanager
async def receiving() -> AsyncIterator[tuple[str, list[Any]]]:
    """A receiver of OTLP over gRPC, and the spans that came."""
    service = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc")
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

    spans: list[Any] = []

    class Receiver(service.TraceServiceServicer):  # type: ignore[name-defined,misc]
        async def Export(self, request: Any, context: Any) -> Any:  # noqa: N802  its name in the protocol
            spans.extend(span for r in request.resource_spans for scope in r.scope_spans for span in scope.spans)
            return ExportTraceServiceResponse()

    server = grpc.aio.server()
    service.add_TraceServiceServicer_to_server(Receiver(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"http://127.0.0.1:{port}", spans
    finally:
        await server.stop(0)


@contextmanager
def lines() -> Iterator[io.StringIO]:
    """Everything that anybody logs, at every level of ours."""
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(JsonLines())
    root, ours = logging.getLogger(), logging.getLogger("nearcase")
    root.addHandler(handler)
    ours.setLevel(logging.DEBUG)
    try:
        yield out
    finally:
        root.removeHandler(handler)
        ours.setLevel(logging.NOTSET)


@pytest.mark.parametrize("formatter", [JsonLines(), TextLines()])
def test_an_exception_is_told_by_type_and_place_and_never_by_its_words(formatter: logging.Formatter) -> None:
    try:
        raise ValueError(f"could not read {MARKS[0]}")
    except ValueError:
        import sys

        told = ("a task failed\nfuture: " + MARKS[0], (), sys.exc_info())
        record = logging.LogRecord("asyncio", logging.ERROR, __file__, 1, *told)
    line = formatter.format(record)
    assert MARKS[0] not in line
    assert "a task failed: ValueError at " in line
    assert "\n" not in line


def test_a_name_is_hashed_alike_in_one_process_and_says_nothing() -> None:
    assert hashed("Ann") == hashed("Ann") != hashed("Anne")
    assert "Ann" not in hashed("Ann")
    assert hashed("") == ""


def test_a_long_stream_keeps_few_stages() -> None:
    trail = Trail()
    for number in range(MOST_STAGES):
        trail.add([("decode", 1.0), ("encode", 2.0)], float(number))
    assert len(trail.stages) == MOST_STAGES
    assert trail.left_out_count == MOST_STAGES


def test_stages_follow_one_another_and_end_now() -> None:
    trail = Trail()
    trail.add([("decode", 1000.0), ("encode", 2000.0)], 10.0)
    assert trail.stages == [Stage("encode", 8.0, 10.0), Stage("decode", 7.0, 8.0)]
    assert trail.sums_ms() == {"encode": 2000.0, "decode": 1000.0}


@pytest.mark.parametrize(
    "wrong", [{"otlp_endpoint": "localhost:4317"}, {"log_format": "xml"}, {"max_bytes_in_flight": 1}]
)
def test_wrong_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match=next(iter(wrong))):
        read_settings(environment={}, **wrong)
