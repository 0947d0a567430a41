"""Every call, role, tenant and kind of token against a real server: the answers are those of docs/security.md."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, cast

import grpc
import pytest
from auth_files import (
    FAST,
    TLS,
    TOKENS,
    authority,
    callers_file,
    claims,
    forged,
    jwk,
    public_pem,
    rsa_key,
    token,
    write_tls,
)
from grpc_health.v1 import health_pb2, health_pb2_grpc
from serving import serving_here

from nearcase.serve.roles import NEEDED, ROLES
from nearcase.v1 import decision_pb2, encoder_pb2, library_pb2, search_pb2

pytestmark = pytest.mark.system

PAGE = (Path(__file__).parents[1] / "docs" / "security.md").read_text()
METHODS = sorted(
    f"/{service.full_name}/{method.name}"
    for module in (search_pb2, decision_pb2, library_pb2, encoder_pb2)
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
)
KEY, OTHER = rsa_key(), rsa_key()

WRONG: dict[str, Callable[[str, str], str]] = {
    "none": lambda role, tenant: "",
    "expired": lambda role, tenant: signed(role, tenant, exp=time.time() - 60),
    "not yet valid": lambda role, tenant: signed(role, tenant, nbf=time.time() + 60),
    "wrong audience": lambda role, tenant: signed(role, tenant, aud="another"),
    "wrong issuer": lambda role, tenant: signed(role, tenant, iss="https://else.example"),
    "wrong algorithm": lambda role, tenant: forged(claimed(role, tenant), "HS256", public_pem(KEY)),
    "wrong algorithm none": lambda role, tenant: forged(claimed(role, tenant), "none"),
    "wrong key": lambda role, tenant: token(OTHER, claimed(role, tenant)),
}


def claimed(role: str, tenant: str, **changed: object) -> dict[str, object]:
    return claims(time.time(), roles=[role], tenant=tenant, **changed)


def signed(role: str, tenant: str, **changed: object) -> str:
    return token(KEY, claimed(role, tenant, **changed))


def documented_roles() -> dict[str, set[str]]:
    rows = re.findall(r"^\| `(\w+/\w+)` \| ([a-z, ]+) \|$", PAGE, re.MULTILINE)
    return {f"/nearcase.v1.{call}": set(roles.split(", ")) for call, roles in rows}


@pytest.fixture(name="channel")
async def open_server(tmp_path: Path) -> AsyncIterator[grpc.aio.Channel]:
    ca = authority("ca")
    write_tls(tmp_path, ca)
    (tmp_path / "keys").write_text(json.dumps({"keys": [jwk(KEY, "k1")]}))
    file = callers_file(tmp_path, FAST, TLS, TOKENS)
    async with serving_here(tmp_path / "data", callers=file, tenants="caller", reflection=True) as app:
        encrypted = grpc.ssl_channel_credentials(ca.pem)
        async with grpc.aio.secure_channel(app.address, encrypted) as channel:
            yield channel


async def answer(channel: grpc.aio.Channel, method: str, text: str, *more: tuple[str, str]) -> tuple[str, str, str]:
    """Code, message and reason of a call with one empty message; on the wire every call is a stream.

    grpc.aio's client now and then breaks on its own, without an answer, when a refusal overtakes the message that it is
    about to send (one call in ten thousands): such a call is made again.
    """
    for _ in range(3):
        found = await _answer(channel, method, text, *more)
        if found[0] != "INTERNAL" or found[1].startswith("internal error;"):  # the server's own words
            break
    return found


async def _answer(channel: grpc.aio.Channel, method: str, text: str, *more: tuple[str, str]) -> tuple[str, str, str]:
    metadata = [("authorization", f"Bearer {text}"), *more] if text else list(more)
    call: grpc.aio.StreamStreamCall[bytes, bytes] = cast(Any, channel).stream_stream(method)(
        iter([b""]), metadata=metadata, timeout=30
    )
    try:
        async for _ in call:
            pass
    except grpc.aio.AioRpcError:
        pass
    reason = dict(await call.trailing_metadata() or ()).get("nearcase-reason", "")
    return (await call.code()).name, await call.details() or "", str(reason)


async def test_every_call_has_roles_and_the_page_says_them() -> None:
    ours = {method: roles for method, roles in NEEDED.items() if method.startswith("/nearcase.")}
    assert sorted(ours) == METHODS
    assert documented_roles() == ours


async def test_every_call_role_tenant_and_token_is_answered_as_documented(channel: grpc.aio.Channel) -> None:
    documented, messages = documented_roles(), set()
    for method in METHODS:
        for role in sorted(ROLES):
            for tenant in ("north", "south"):
                answers = await asyncio.gather(
                    *(answer(channel, method, make(role, tenant)) for make in WRONG.values())
                )
                assert {(code, reason) for code, _, reason in answers} == {("UNAUTHENTICATED",) * 2}, (method, role)
                messages |= {message for _, message, _ in answers}
                code, message, reason = await answer(channel, method, signed(role, tenant))
                if role in documented[method]:
                    assert (code, reason) not in (("UNAUTHENTICATED",) * 2, ("PERMISSION_DENIED", "ROLE")), method
                    assert code in ("OK", "INVALID_ARGUMENT", "NOT_FOUND", "UNIMPLEMENTED"), (method, code, message)
                else:
                    assert (code, reason) == ("PERMISSION_DENIED", "ROLE"), (method, role)
    assert len(messages) == 1


async def test_a_stranger_learns_nothing_and_health_is_open(channel: grpc.aio.Channel) -> None:
    health = health_pb2_grpc.HealthStub(channel)
    asked = health_pb2.HealthCheckRequest(service="nearcase.v1.SearchService")
    assert (await health.Check(asked)).status == health_pb2.HealthCheckResponse.SERVING
    reflection = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
    for method in ("/nearcase.v1.SearchService/Nothing", "/x/y", "/grpc.health.v1.Health/Other", reflection):
        assert (await answer(channel, method, ""))[0] == "UNAUTHENTICATED", method
        code = (await answer(channel, method, signed("admin", "north")))[0]
        assert code == ("OK" if method == reflection else "UNIMPLEMENTED")
    assert (await answer(channel, reflection, signed("search", "north")))[2] == "ROLE"


async def test_no_caller_chooses_a_tenant(channel: grpc.aio.Channel) -> None:
    method, good = "/nearcase.v1.LibraryService/GetStatistics", signed("search", "north")
    assert (await answer(channel, method, good))[0] == "OK"
    for name in ("south", "north", ""):
        assert (await answer(channel, method, good, ("nearcase-tenant", name)))[2] == "TENANT"
    assert (await answer(channel, method, "", ("nearcase-tenant", "north")))[0] == "UNAUTHENTICATED"
    assert (await answer(channel, method, good, ("authorization", f"Bearer {good}")))[0] == "UNAUTHENTICATED"


async def test_a_strangers_body_is_not_read(channel: grpc.aio.Channel) -> None:
    """The refusal comes though the message never does; a caller who is known is waited for."""

    async def body() -> AsyncIterator[bytes]:
        await asyncio.sleep(60)
        yield b""

    call = cast(Any, channel).stream_unary("/nearcase.v1.SearchService/Search")(body())
    assert await asyncio.wait_for(call.code(), 10) is grpc.StatusCode.UNAUTHENTICATED
    known = [("authorization", f"Bearer {signed('search', 'north')}")]
    call = cast(Any, channel).stream_unary("/nearcase.v1.SearchService/Search")(body(), metadata=known, timeout=0.5)
    assert await call.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_the_log_names_the_cause_and_never_the_token(
    channel: grpc.aio.Channel, caplog: pytest.LogCaptureFixture
) -> None:
    text = WRONG["expired"]("search", "north")
    for method in ("/nearcase.v1.SearchService/Search", "/evil\tline/x"):
        await answer(channel, method, text)
    lines = [record.getMessage() for record in caplog.records if record.name == "nearcase.serve.gate"]
    assert len(lines) == 1  # the second came within the same second
    assert "expired" in lines[0]
    assert not [part for part in text.split(".") if part in caplog.text]
