"""Who reaches the server at all, what one caller may ask, and that callers of two tenants never meet."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from auth_files import (
    FAST,
    TLS,
    TOKENS,
    HandClock,
    authority,
    callers_file,
    claims,
    jwk,
    rsa_key,
    token,
    write_tls,
)
from google.rpc import error_details_pb2, status_pb2
from serving import scan, serving, serving_here

from nearcase.channel import Tls, open_channel
from nearcase.client import AddItem, Client, Example
from nearcase.errors import InvalidInput, NotAllowed, NotFound, Overloaded
from nearcase.serve.access import read_access
from nearcase.serve.caller import Caller
from nearcase.serve.limits import MAX_REMEMBERED, Limits
from nearcase.serve.roles import ROLES
from nearcase.serve.security import is_loopback, open_security
from nearcase.settings import Settings
from nearcase.types import Case
from nearcase.v1 import library_pb2, library_pb2_grpc, search_pb2, search_pb2_grpc

KEY = rsa_key()
MIB = 2**20
PROJECT = Path(__file__).parents[1]


def keys_in(folder: Path) -> None:
    (folder / "keys").write_text(json.dumps({"keys": [jwk(KEY, "k1")]}))


def metadata(name: str, *roles: str, tenant: str = "north") -> list[tuple[str, str]]:
    return [("authorization", f"Bearer {held(name, *roles, tenant=tenant)}")]


def held(name: str, *roles: str, tenant: str = "north") -> str:
    return token(KEY, claims(time.time(), sub=name, roles=list(roles), tenant=tenant))


# Who reaches it


@pytest.mark.parametrize(
    ("listen", "expected"),
    [
        ("127.0.0.1:1", True),
        ("127.8.8.8:1", True),
        ("[::1]:1", True),
        ("localhost:1", True),
        ("0.0.0.0:1", False),
        ("[::]:1", False),
        ("10.0.0.1:1", False),
        ("localhost.evil.example:1", False),
        ("127.0.0.1.evil.example:1", False),
    ],
)
def test_what_is_this_machine_only(listen: str, expected: bool) -> None:
    assert is_loopback(listen) is expected


async def test_a_server_that_strangers_could_use_does_not_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keys_in(tmp_path)
    write_tls(tmp_path, authority("ca"))
    plain, encrypted = callers_file(tmp_path, TOKENS), tmp_path / "encrypted.toml"
    encrypted.write_text(TLS + TOKENS)
    for callers in (None, plain):
        there = {"listen": "0.0.0.0:0", "callers": callers}
        with pytest.raises(InvalidInput, match="insecure = true"):
            await open_security(Settings(**there), HandClock())  # type: ignore[arg-type]
        insecure = await open_security(Settings(insecure=True, **there), HandClock())  # type: ignore[arg-type]
        assert insecure.says.startswith("INSECURE")
        here = await open_security(Settings(callers=callers), HandClock())
        assert "this machine only" in here.says
    assert len([record for record in caplog.records if record.levelno == logging.WARNING]) == 2
    safe = await open_security(Settings(listen="0.0.0.0:0", callers=encrypted), HandClock())
    assert safe.credentials
    assert "INSECURE" not in safe.says


@pytest.mark.parametrize(
    ("tenants", "has_callers", "fault"),
    [("caller", False, "expected callers"), ("metadata", True, "expected .caller.")],
)
async def test_tenants_come_from_callers_or_from_a_gateway(
    tmp_path: Path, tenants: str, has_callers: bool, fault: str
) -> None:
    keys_in(tmp_path)
    callers = callers_file(tmp_path, TOKENS) if has_callers else None
    with pytest.raises(InvalidInput, match=fault):
        await open_security(Settings(tenants=tenants, callers=callers), HandClock())


CERTIFICATE = '[[certificate]]\nidentity = "dns:a"\nroles = ["search"]\n'
MUTUAL = TLS + 'client_ca = "clients.crt"\n'


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "somebody may call"),
        (TLS, "somebody may call"),
        ("token = 1", "'token'"),
        ("[tokens]\nissuer = 'a'", "tokens.keys"),
        ("[tokens]\nissuer = ''\nkeys = 'a'", "issuer is empty"),
        ("[tokens]\nissuer = 3\nkeys = 'a'", "another type"),
        ("[tls]\nkey = 'a'\n" + TOKENS, "tls.certificate"),
        (TLS + "password = 'a'\n" + TOKENS, "tls.password"),
        (CERTIFICATE, "client_ca"),
        (MUTUAL + CERTIFICATE * 2, "once"),
        (MUTUAL + CERTIFICATE.replace("dns:", ""), "dns:"),
        (MUTUAL + CERTIFICATE.replace("search", "root"), "'root'"),
        (MUTUAL + CERTIFICATE.replace('"search"', ""), "got none"),
        (MUTUAL + CERTIFICATE + 'tenant = "north"\n', "no tenant"),
        ("requests_per_s = 0\n" + TOKENS, "requests_per_s"),
        ("requests_per_s = nan\n" + TOKENS, "requests_per_s"),
        ("bytes_in_flight = 5\n" + TOKENS, "bytes_in_flight"),
        ("requests_per_s = true\n" + TOKENS, "another type"),
        ("[tokens", "callers.toml"),
    ],
)
def test_a_wrong_callers_file_is_one_line_that_names_the_fault(tmp_path: Path, text: str, fault: str) -> None:
    with pytest.raises(InvalidInput, match=fault) as refused:
        read_access(callers_file(tmp_path, text), with_tenants=False, largest_bytes=MIB)
    assert "\n" not in str(refused.value)


def test_each_certificate_has_its_tenant(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="a tenant"):
        read_access(callers_file(tmp_path, MUTUAL, CERTIFICATE), with_tenants=True, largest_bytes=MIB)
    file = callers_file(tmp_path, MUTUAL, CERTIFICATE, 'tenant = "north"\n')
    found = read_access(file, with_tenants=True, largest_bytes=MIB)
    assert found.certificates == {"dns:a": Caller("dns:a", "north", frozenset({"search"}))}


def test_a_client_gives_its_token_to_nobody_who_listens(tmp_path: Path) -> None:
    for token_of in ("a.b.c", tmp_path / "token"):
        with pytest.raises(InvalidInput, match="readable on its way"):
            open_channel("server.example:50051", token=token_of)
    open_channel("server.example:50051", token="a.b.c", insecure=True).close()
    open_channel("server.example:50051", token="a.b.c", tls=Tls()).close()
    with pytest.raises(InvalidInput, match="one of them"):
        open_channel("server.example:50051", tls=Tls(certificate=tmp_path / "a"))
    with pytest.raises(InvalidInput, match="can not be read"):
        open_channel("server.example:50051", tls=Tls(ca=tmp_path / "a"))


# What one caller may ask


def test_a_bucket_fills_with_time_that_passed_and_no_other() -> None:
    clock = HandClock()
    limits, one, other = Limits(clock, 10, 100), Caller("a", "north"), Caller("a", "south")
    for _ in range(20):  # two seconds' worth
        limits.enter(one)
    for wall_s in (1e9, -1e9):
        clock.wall_s += wall_s
        with pytest.raises(Overloaded) as refused:
            limits.enter(one)
        assert refused.value.reason == "CALLER_RATE"
    limits.enter(other)
    clock.run_s += 0.1
    limits.enter(one)
    with pytest.raises(Overloaded):
        limits.enter(one)
    clock.run_s += 1e6
    for _ in range(20):
        limits.enter(one)
    with pytest.raises(Overloaded):
        limits.enter(one)


def test_bytes_are_counted_while_they_are_there() -> None:
    limits, one = Limits(HandClock(), 10, 100), Caller("a")
    limits.hold(one, 60)
    with pytest.raises(Overloaded) as refused:
        limits.hold(one, 41)
    assert refused.value.reason == "CALLER_BYTES"
    limits.hold(one, 40)
    limits.drop(one, 100)
    limits.hold(one, 100)
    limits.hold(Caller("b"), 100)
    for number in range(MAX_REMEMBERED + 10):  # whoever holds something is not forgotten
        limits.enter(Caller(str(number)))
    with pytest.raises(Overloaded):
        limits.hold(one, 1)


@pytest.mark.system
async def test_one_caller_that_runs_wild_keeps_no_other_out(tmp_path: Path) -> None:
    keys_in(tmp_path)
    sizes = {"max_message_bytes": 2 * MIB, "max_image_bytes": 2 * MIB}
    file = callers_file(tmp_path, f"requests_per_s = 5\nbytes_in_flight = {2 * MIB}\n", TOKENS)
    async with (
        serving_here(tmp_path / "data", callers=file, **sizes) as app,
        grpc.aio.insecure_channel(app.address) as channel,
    ):
        library, search = library_pb2_grpc.LibraryServiceStub(channel), search_pb2_grpc.SearchServiceStub(channel)
        asked, wild, quiet = library_pb2.GetStatisticsRequest(), metadata("wild", "search"), metadata("quiet", "search")
        calls = [library.GetStatistics(asked, metadata=wild) for _ in range(30)]
        codes = [await call.code() for call in calls]
        refused = [call for call, code in zip(calls, codes, strict=True) if code is not grpc.StatusCode.OK]
        assert 10 <= codes.count(grpc.StatusCode.OK) < 30
        trailers = dict(await refused[0].trailing_metadata() or ())
        status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
        assert trailers["nearcase-reason"] == "CALLER_RATE"
        assert [each for each in status.details if each.Is(error_details_pb2.RetryInfo.DESCRIPTOR)]
        assert (await library.GetStatistics(asked, metadata=quiet)).case_count == 0

        # Two streams of one file each, of which the first has not ended.
        def chunk(size: int) -> search_pb2.SearchStreamRequest:
            message = search_pb2.SearchStreamRequest()
            message.chunk.data = b"\0" * size
            return message

        def begin(size: int) -> search_pb2.SearchStreamRequest:
            return search_pb2.SearchStreamRequest(start=search_pb2.SearchStreamStart(size_bytes=size))

        first = search.SearchStream(metadata=quiet)
        await first.write(begin(2 * MIB))
        await first.write(chunk(3 * MIB // 2))
        await asyncio.sleep(0.3)
        second = search.SearchStream(metadata=quiet)
        await second.write(begin(2 * MIB))
        await second.write(chunk(MIB))
        assert await second.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert dict(await second.trailing_metadata() or ())["nearcase-reason"] == "CALLER_BYTES"
        first.cancel()
        await asyncio.sleep(0.3)
        third = search.SearchStream(metadata=quiet)
        await third.write(begin(MIB))
        await third.write(chunk(MIB))
        await third.done_writing()
        assert await third.code() is grpc.StatusCode.INVALID_ARGUMENT  # zeros are no image

        # What is too large for a message is refused as it was before there was a gate.
        image = search_pb2.SearchRequest(examples=[search_pb2.Example(image=b"\0" * (3 * MIB))])
        assert await search.Search(image, metadata=quiet).code() is grpc.StatusCode.RESOURCE_EXHAUSTED


# Two tenants


@contextmanager
def two_tenants(folder: Path, *options: str) -> Iterator[tuple[Client, Client]]:
    keys_in(folder)
    file, also = callers_file(folder, FAST, TOKENS), folder / "settings.toml"
    also.write_text('tenants = "caller"\n')
    with (
        serving(folder / "data", "--settings", str(also), "--callers", str(file), *options) as server,
        Client(server.address, token=held("n", *ROLES, tenant="north")) as north,
        Client(server.address, token=held("s", *ROLES, tenant="south")) as south,
    ):
        yield north, south


def fill(client: Client, patient: str, seed: int) -> list[Case]:
    items = [AddItem(f"{patient}-{number}", scan(seed + number, patient), {"mass": "1"}) for number in range(2)]
    return [client.case(result.case_id) for result in client.add(items)]


@pytest.mark.system
def test_callers_of_two_tenants_find_nothing_of_each_other(tmp_path: Path) -> None:
    """By search, filter, text, id, export, import and erase; the very same images lie on both sides."""
    with two_tenants(tmp_path) as (north, south):
        mine, theirs = fill(north, "P1", 0), fill(south, "P1", 0)
        fill(south, "P2", 50)
        own = {case.case_id for case in mine}
        assert own.isdisjoint(case.case_id for case in theirs)
        for where in ("", "label.mass = 1", "modality = CT or modality != CT", "not modality = MR"):
            assert {hit.case.case_id for hit in north.search(scan(9, "P9"), k=50, where=where).hits} == own
            assert {case.case_id for case in north.cases(where)} == own
        with pytest.raises(InvalidInput):
            list(north.cases("tenant = south"))
        about = south.decide(scan(9, "P9")).decisions[0]
        for ask in (
            lambda: north.case(theirs[0].case_id),
            lambda: north.search(case_id=theirs[0].case_id),
            lambda: north.search(series_uid=south.cases("label.mass = 1").__next__().facts.series_uid + ".9"),
            lambda: north.library.update(case_id=theirs[0].case_id, labels={"mass": "9"}),
            lambda: north.record(about.record_id),
        ):
            with pytest.raises(NotFound):
                ask()
        assert {each.case.case_id for each in north.transfer.export()} == own
        taken = list(south.transfer.export())
        identity = south.transfer.identity()
        with pytest.raises(InvalidInput):  # another tenant's cases are no import
            list(north.transfer.import_cases(identity, [taken]))
        assert north.library.erase(patient_id="P2") == (0, None)
        assert north.library.erase(case_id=theirs[0].case_id) == (0, None)
        assert north.erase(patient_id="P1") == 2
        assert (north.statistics().case_count, south.statistics().case_count) == (0, 4)
        assert list(south.library.erasures()) == []
        assert south.record(about.record_id)


@pytest.mark.system
def test_words_find_nothing_of_another_tenant(tmp_path: Path, words_encoder_folder: Path) -> None:
    with two_tenants(tmp_path, "--encoder", str(words_encoder_folder)) as (north, south):
        fill(south, "P1", 0)
        words = [Example(text="a chest radiograph")]
        assert len(south.search(examples=words, k=50).hits) == 2
        assert north.search(examples=words, k=50).hits == ()
        mine = fill(north, "P2", 50)
        assert {hit.case.case_id for hit in north.search(examples=words, k=50).hits} == {each.case_id for each in mine}


# By hand


def test_the_threat_model_names_tests_that_are_there() -> None:
    named = set(re.findall(r"`(test_\w+)`", (PROJECT / "docs" / "threat-model.md").read_text()))
    written = {
        name
        for file in (PROJECT / "tests").glob("test_*.py")
        for name in re.findall(r"^(?:async )?def (test_\w+)", file.read_text(), re.MULTILINE)
    }
    assert len(named) > 30
    assert named <= written


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-m", "nearcase", *arguments]
    return subprocess.run(
        program, check=False, capture_output=True, text=True, timeout=120, env=os.environ | environment
    )


@pytest.mark.system
def test_a_site_makes_its_keys_and_tokens_and_uses_them(tmp_path: Path) -> None:
    """The way of docs/security.md, with encryption: what each wrong step says is one line that helps."""
    key, out, ca = tmp_path / "site.key", tmp_path / "pacs.token", authority("ca")
    assert command("token", "new-key", "--out", str(key)).returncode == 0
    issue = ["token", "issue", "--key", str(key), "--name", "pacs", "--role", "search", "--days", "1"]
    assert command(*issue, "--out", str(out)).returncode == 0
    assert (stat.S_IMODE(key.stat().st_mode), stat.S_IMODE(out.stat().st_mode)) == (0o600, 0o600)
    assert command(*issue, "--out", str(out)).returncode == 2
    write_tls(tmp_path, ca)
    (tmp_path / "ca.crt").write_bytes(ca.pem)
    file = callers_file(tmp_path, TLS, '[tokens]\nissuer = "nearcase-local"\nkeys = "site.key.pub"\n')
    with serving(tmp_path / "data", "--callers", str(file)) as server:
        ask = ["library", "info", "--server", server.address, "--tls-ca", str(tmp_path / "ca.crt")]
        assert command(*ask, NEARCASE_TOKEN_FILE=str(out)).returncode == 0
        nobody = command(*ask)
        assert (nobody.returncode, "expected a token" in nobody.stderr) == (2, True)
        plain = command("library", "info", "--server", server.address, "--token-file", str(out))
        assert (plain.returncode, "--tls-ca" in plain.stderr) == (1, True)
        erase = command(
            *("library", "erase", "--patient", "P1", "--yes", *ask[2:], "--token-file", str(out)),
        )
        assert erase.returncode == 2
        assert "roles of this caller" in erase.stderr, erase.stderr
        with Client(server.address, tls=Tls(tmp_path / "ca.crt"), token=out) as client:  # a token that is replaced
            assert client.statistics().case_count == 0
            out.write_text("x.y.z")
            with pytest.raises(NotAllowed, match="expected a token"):
                client.statistics()
    refused = command("serve", "--listen", "0.0.0.0:0", "--data", str(tmp_path / "other"))
    assert (refused.returncode, "insecure = true" in refused.stderr) == (2, True)
