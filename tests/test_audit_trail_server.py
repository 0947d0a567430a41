"""The audit trail of a real server: every call has its record, no answer goes out before it, and it names nobody."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import grpc
import pytest
from auth_files import FAST, TLS, TOKENS, authority, callers_file, claims, jwk, rsa_key, token, write_tls
from grpc_health.v1 import health_pb2, health_pb2_grpc
from serving import picture, scan, serving, serving_here
from trail_files import fill, small_disk

from nearcase.audit.event import AuditEvent
from nearcase.audit.key import read_key
from nearcase.audit.query import records_in
from nearcase.audit.verify import verify
from nearcase.client import AddItem, Client
from nearcase.errors import NearcaseError, Unready
from nearcase.serve.roles import NEEDED
from nearcase.types import CaseFacts
from nearcase.v1 import decision_pb2, library_pb2, library_pb2_grpc, search_pb2, search_pb2_grpc

pytestmark = pytest.mark.system

GONE = "AUDITED-4711"
LABELS = {"mass": "1"}


def events(folder: Path, rpc: str = "", phase: str = "") -> list[AuditEvent]:
    found = [kept.event for kept in records_in(folder)]
    return [each for each in found if each.rpc.endswith(rpc) and (not phase or each.phase == phase)]


def add(client: Client, *patients: str) -> list[str]:
    files = [AddItem(f"{name}-{seed}", scan(seed, name), labels=LABELS) for name in patients for seed in range(3)]
    results = list(client.add(files))
    assert not [each.error for each in results if each.error]
    return [each.case_id for each in results]


def test_every_kind_of_call_has_its_record(tmp_path: Path) -> None:
    folder = tmp_path / "audit"
    with serving(tmp_path) as server, Client(server.address) as client:
        case_ids = add(client, GONE, "OTHER")
        key = read_key(tmp_path / "audit.key")
        hits = client.search(scan(7, GONE), k=2, where="modality = CT").hits
        (search,) = events(folder, "Search")
        assert (search.code, search.count, search.phase) == ("OK", len(hits), "end")
        assert set(search.cases) == {key.named("", "case", hit.case.case_id) for hit in hits}
        assert search.patients == (key.named("", "patient", "|OTHER"),)
        assert key.named("", "patient", f"|{GONE}") in search.about
        assert key.named("", "filter", "modality = CT") in search.about
        assert search.encoder.startswith("efficientnet-lite0")
        decision = client.decide(scan(7, GONE), finding="mass").decisions[0]
        (decided,) = events(folder, "Decide")
        assert [each.finding for each in decided.decisions] == ["mass"]
        assert decided.decisions[0].record_id == decision.record_id
        assert decided.decisions[0].reason == decision.abstain_reason
        assert decided.library
        client.record(decision.record_id)
        assert events(folder, "GetRecord")[0].detail == f"record {decision.record_id}"
        list(client.cases())
        assert len(events(folder, "ListCases")[0].cases) == 6
        client.case(case_ids[0])
        assert events(folder, "GetCase")[0].cases == (key.named("", "case", case_ids[0]),)
        added = events(folder, "AddImages")
        assert added[0].phase == "begin"
        assert {name for each in added for name in each.cases} == {key.named("", "case", each) for each in case_ids}
        list(client.transfer.export())
        exported = {name for each in events(folder, "ExportCases", "part") for name in each.cases}
        assert exported == {key.named("", "case", each) for each in case_ids}
        assert client.erase(patient_id=GONE) == 3
        begun, erased = events(folder, "EraseCases")
        assert (begun.phase, erased.phase, erased.count) == ("begin", "end", 3)
        assert erased.about == (key.named("", "patient", f"|{GONE}"),)
        (certificate,) = client.library.erasures()
        assert certificate.erasure_id in erased.detail
        with pytest.raises(NearcaseError):
            client.search(b"no image")
        time.sleep(0.2)  # nobody waits for the record of a refusal
        failed = events(folder, "Search")[-1]
        assert (failed.code, failed.reason) == ("INVALID_ARGUMENT", "UNKNOWN_FORMAT")
        assert verify(folder, key).is_sound  # while it runs
    kinds = [each.kind for each in events(folder)]
    assert (kinds[:2], kinds[-1]) == (["file", "start"], "stop")
    assert verify(folder, key).is_sound
    written = b"".join(path.read_bytes() for path in folder.iterdir())
    for secret in (GONE, "OTHER", "1.2.3.", "modality", "127.0.0.1", *case_ids):
        assert secret.encode() not in written, secret


async def test_every_call_of_the_api_has_a_record_whatever_it_answers(tmp_path: Path) -> None:
    methods = [method for method in NEEDED if method.startswith("/nearcase.")]
    async with serving_here(tmp_path) as app, grpc.aio.insecure_channel(app.address) as channel:
        for method in methods:
            call = cast(Any, channel).stream_stream(method)(iter([b""]), timeout=60)
            try:
                async for _ in call:
                    pass
            except grpc.aio.AioRpcError:
                pass
    ended = [each.rpc for each in events(tmp_path / "audit", phase="end")]
    assert sorted(ended) == sorted(method.removeprefix("/nearcase.") for method in methods)


async def test_who_asked_and_who_was_refused(tmp_path: Path) -> None:
    key, ca, now_s = rsa_key(), authority("ca"), time.time()
    write_tls(tmp_path, ca)
    (tmp_path / "keys").write_text(json.dumps({"keys": [jwk(key, "k1")]}))
    file = callers_file(tmp_path, FAST, TLS, TOKENS)
    data = tmp_path / "data"
    async with serving_here(data, callers=file, tenants="caller") as app:
        encrypted = grpc.ssl_channel_credentials(ca.pem)
        async with grpc.aio.secure_channel(app.address, encrypted) as channel:
            stub = search_pb2_grpc.SearchServiceStub(channel)
            request = search_pb2.SearchRequest(examples=[search_pb2.Example(image=scan(1))])
            right = ("authorization", f"Bearer {token(key, claims(now_s, sub='dr house'))}")
            auditor = ("authorization", f"Bearer {token(key, claims(now_s, sub='eve', roles=['audit']))}")
            call = stub.Search(request, metadata=[right])
            await call
            request_id = dict(await call.trailing_metadata())["nearcase-request-id"]
            for metadata in ([auditor], *([] for _ in range(20))):
                with pytest.raises(grpc.aio.AioRpcError):
                    await stub.Search(request, metadata=metadata)
    found = events(data / "audit")
    searched = next(each for each in found if each.request_id == request_id)
    assert (searched.caller, searched.tenant, searched.code) == ("dr house", "north", "OK")
    refused = [(each.code, each.reason, each.caller) for each in found if each.kind == "refused"]
    assert refused == [("PERMISSION_DENIED", "ROLE", "eve"), *2 * [("UNAUTHENTICATED", "UNAUTHENTICATED", "")]]
    assert sorted(each.count for each in found if each.kind == "refused") == [1, 1, 19]


def test_a_patient_that_was_given_besides_the_file_is_in_the_record_of_adding(tmp_path: Path) -> None:
    folder = tmp_path / "audit"

    def add_as(patient: str, **labels: str) -> tuple[str, ...]:
        before = len(events(folder, "AddImages", "part"))
        (added,) = client.add([AddItem("a", picture(1), labels=labels, facts=CaseFacts(patient_id=patient))])
        assert not added.error
        return tuple(name for each in events(folder, "AddImages", "part")[before:] for name in each.patients)

    with serving(tmp_path) as server, Client(server.address) as client:
        named = (read_key(tmp_path / "audit.key").named("", "patient", f"|{GONE}"),)
        assert add_as(GONE) == named
        assert add_as(GONE) == named  # unchanged
        assert add_as("") == named  # unchanged, and not said again
        assert add_as("", mass="1") == named  # replaced, and not said again


async def test_refusals_that_were_only_counted_are_told_while_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nearcase.serve.refusals.EVERY_S", 3.0)
    key, ca = rsa_key(), authority("ca")
    write_tls(tmp_path, ca)
    (tmp_path / "keys").write_text(json.dumps({"keys": [jwk(key, "k1")]}))
    async with serving_here(tmp_path / "data", callers=callers_file(tmp_path, FAST, TLS, TOKENS)) as app:
        async with grpc.aio.secure_channel(app.address, grpc.ssl_channel_credentials(ca.pem)) as channel:
            stub = search_pb2_grpc.SearchServiceStub(channel)
            for _ in range(5):
                with pytest.raises(grpc.aio.AioRpcError):
                    await stub.Search(search_pb2.SearchRequest())
        await asyncio.sleep(4.5)
        counts = [each.count for each in events(tmp_path / "data" / "audit") if each.kind == "refused"]
        assert (counts[0], sum(counts), len(counts) <= 3) == (1, 5, True)


def test_kill_9_loses_no_answer_that_was_given(tmp_path: Path) -> None:
    given: list[str] = []
    with serving(tmp_path) as server:
        with grpc.insecure_channel(server.address) as channel:
            stub = search_pb2_grpc.SearchServiceStub(channel)
            request = search_pb2.SearchRequest(examples=[search_pb2.Example(image=scan(1))])
            for _ in range(8):
                _, call = stub.Search.with_call(request, timeout=30)
                given.append(str(dict(call.trailing_metadata())["nearcase-request-id"]))
            server.process.kill()
            server.process.wait()
        assert set(given) <= {each.request_id for each in events(tmp_path / "audit")}
    with serving(tmp_path) as server, Client(server.address) as client:
        client.statistics()
    found = events(tmp_path / "audit")
    assert [each.kind for each in found if each.kind in ("start", "stop")] == ["start", "start", "stop"]
    assert verify(tmp_path / "audit", read_key(tmp_path / "audit.key")).is_sound


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk") as place:
        yield place


async def ask(address: str, what: str) -> tuple[str, str]:
    """The status and the reason of a call."""
    requests: dict[str, Any] = {
        "SearchService/Search": search_pb2.SearchRequest(examples=[search_pb2.Example(image=scan(1))]),
        "DecisionService/Decide": decision_pb2.DecideRequest(image=scan(1)),
        "LibraryService/EraseCases": library_pb2.EraseCasesRequest(instance_uid="1.2.3"),
        "LibraryService/AddImages": library_pb2.AddImagesRequest(
            start=library_pb2.AddImagesStart(request_id="a", size_bytes=len(scan(1)), data=scan(1))
        ),
    }
    async with grpc.aio.insecure_channel(address) as channel:
        call = cast(Any, channel).stream_stream(f"/nearcase.v1.{what}")(
            iter([requests[what].SerializeToString()]), timeout=60
        )
        shown = 0
        try:
            async for _ in call:
                shown += 1
        except grpc.aio.AioRpcError:
            assert not shown
        return (await call.code()).name, str(dict(await call.trailing_metadata() or ()).get("nearcase-reason", ""))


async def test_a_full_disk_stops_answers_and_is_told(disk: Path, tmp_path: Path) -> None:
    folder = disk / "audit"
    calls = ("SearchService/Search", "DecisionService/Decide", "LibraryService/EraseCases", "LibraryService/AddImages")
    async with serving_here(tmp_path / "data", audit_folder=folder, health_listen="127.0.0.1:0") as app:
        assert await ask(app.address, calls[0]) == ("OK", "")
        ballast = fill(disk)
        for _ in range(20):  # what is left of the last block
            if await ask(app.address, calls[0]) != ("OK", ""):
                break
        for call in calls:
            assert await ask(app.address, call) == ("UNAVAILABLE", "AUDIT_NOT_KEPT"), call
        assert await app.engine.library.count() == 0  # nothing was begun
        assert events(folder)[-1].kind == "full"
        await asyncio.sleep(3)
        async with grpc.aio.insecure_channel(app.probes.address) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            answer = await health.Check(health_pb2.HealthCheckRequest(service="nearcase.v1.SearchService"))
            assert answer.status == health_pb2.HealthCheckResponse.NOT_SERVING
        ballast.unlink()
        await asyncio.sleep(2)
        for call in calls:
            assert await ask(app.address, call) == ("OK", ""), call
        kinds = [each.kind for each in events(folder)]
        assert kinds[kinds.index("full") + 1] == "resumed"
    assert verify(folder, read_key(disk / "audit.key")).is_sound


async def test_relaxed_searches_do_not_wait_and_decisions_do(tmp_path: Path) -> None:
    """And in a de-identified library erasures are found by what the library has, too."""
    secret = tmp_path / "pseudonyms.key"
    secret.write_bytes(bytes(range(64)))
    secret.chmod(0o600)
    more = {"deidentify": True, "pseudonym_key": secret, "burned_in": "mask"}
    async with serving_here(tmp_path / "data", audit="relaxed", **more) as app:
        trail = app.engine.audit
        assert trail
        waited: list[str] = []
        keep = trail.keep

        async def watched(event: AuditEvent) -> None:
            waited.append(event.rpc.rpartition("/")[2])
            await keep(event)

        trail.keep = watched  # type: ignore[method-assign]
        await ask(app.address, "SearchService/Search")
        await ask(app.address, "DecisionService/Decide")
        await ask(app.address, "LibraryService/EraseCases")
        assert waited == ["Decide", "EraseCases", "EraseCases"]
        pseudonyms = app.engine.privacy.pseudonyms
        async with grpc.aio.insecure_channel(app.address) as channel:
            library = library_pb2_grpc.LibraryServiceStub(channel)
            patient, other = (library_pb2.PatientKey(patient_id=name) for name in (GONE, "OTHER"))
            await library.EraseCases(library_pb2.EraseCasesRequest(patient=patient))
            merge = library_pb2.MergePatientsRequest(into=other)
            getattr(merge, "from").CopyFrom(patient)
            with suppress(grpc.aio.AioRpcError):  # there is nobody to merge
                await library.MergePatients(merge)
    folder = tmp_path / "data" / "audit"
    assert [each.rpc.rpartition("/")[2] for each in events(folder, phase="end")] == [
        "Search",
        "Decide",
        *2 * ["EraseCases"],
        "MergePatients",
    ]
    assert pseudonyms
    key = read_key(folder.with_name("audit.key"))
    assert key.named("", "instance", pseudonyms.uid("1.2.3")) in events(folder, "EraseCases", "end")[0].about
    shown = json.loads(run("search", folder, "--patient", pseudonyms.patient(GONE, ""), "--json")[1])
    assert [each["rpc"] for each in shown if each["phase"] == "end"] == [
        "v1.LibraryService/EraseCases",
        "v1.LibraryService/MergePatients",
    ]


async def test_a_trail_that_can_not_be_written_stops_the_start(tmp_path: Path) -> None:
    async with serving_here(tmp_path / "a", audit_folder=tmp_path / "trail") as app:
        with pytest.raises(Unready) as refused:
            async with serving_here(tmp_path / "b", audit_folder=tmp_path / "trail"):
                pass
        assert refused.value.reason == "AUDIT_IN_USE"
        (tmp_path / "trail").rename(tmp_path / "away")  # and while it runs it stops the answers
        for _ in range(2):
            assert await ask(app.address, "SearchService/Search") == ("UNAVAILABLE", "AUDIT_NOT_KEPT")
        assert app.engine.audit
        assert app.engine.audit.problem  # which health and the metric tell
        (tmp_path / "away").rename(tmp_path / "trail")
        await asyncio.sleep(1.5)
        assert await ask(app.address, "SearchService/Search") == ("OK", "")
    (tmp_path / "trail.key").unlink()
    with pytest.raises(NearcaseError) as wrong:
        async with serving_here(tmp_path / "a", audit_folder=tmp_path / "trail"):
            pass
    assert wrong.value.reason == "AUDIT_KEY"
    async with serving_here(tmp_path / "a", audit="off") as app:
        assert app.engine.audit is None
        assert await ask(app.address, "SearchService/Search") == ("OK", "")


# The commands


def run(*arguments: object) -> tuple[int, str]:
    command = [sys.executable, "-m", "nearcase", "audit", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout + done.stderr


def test_commands_over_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "audit"
    with serving(tmp_path) as server, Client(server.address) as client:
        case_ids = add(client, GONE)
        client.search(scan(1, "ASKED"), k=1)
        code, said = run("verify", folder)
        assert (code, "whole" in said) == (0, True), said
        shown = json.loads(run("search", folder, "--patient", "ASKED", "--json")[1])
        assert [each["rpc"] for each in shown] == ["v1.SearchService/Search"]
        shown = json.loads(run("search", folder, "--case", case_ids[0], "--rpc", "add", "--json")[1])
        assert [each["phase"] for each in shown] == ["part"]
        assert "Search" in run("search", folder, "--rpc", "search")[1]
    out = tmp_path / "out.jsonl"
    assert run("export", folder, "--out", out)[0] == 0
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    found = json.loads(run("verify", folder, "--json")[1])
    assert len(lines) == found["records"]
    assert [line["seq"] for line in lines] == list(range(1, len(lines) + 1))
    assert [line["prev"] for line in lines[1:]] == [line["sha256"] for line in lines[:-1]]
    assert run("verify", folder, "--last", f"{found['last_seq']}:{found['last_sha256']}")[0] == 0
    assert run("verify", folder, "--last", f"{found['last_seq']}:{'0' * 64}")[0] == 1
    assert run("verify", folder, "--last", "1")[0] == 2
    (path,) = folder.glob("*.jsonl")
    path.write_bytes(path.read_bytes().replace(b'"code":"OK"', b'"code":"NO"', 1))
    code, said = run("verify", folder)
    assert (code, "WRONG" in said, "was changed" in said) == (1, True, True)
