"""TLS and certificates: who is let in, and files that change while the server runs."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from auth_files import TLS, TOKENS, Authority, authority, callers_file, claims, jwk, rsa_key, token, write_tls
from cryptography import x509
from serving import picture, serving_here

from nearcase.client import AddItem, Client, Tls
from nearcase.errors import InvalidInput, NotAllowed, Unready
from nearcase.serve.app import App
from nearcase.serve.credentials import Credentials, TlsFiles
from nearcase.v1 import library_pb2, library_pb2_grpc

CLIENTS = authority("clients")
KEY = rsa_key()
TABLE = """
[[certificate]]
identity = "dns:pacs.example"
roles = ["search", "add"]
tenant = "north"

[[certificate]]
identity = "uri:spiffe://example/auditor"
roles = ["audit"]
tenant = "south"
"""
MUTUAL = TLS + 'client_ca = "clients.crt"\n'


def names(*given: str) -> tuple[x509.GeneralName, ...]:
    return tuple(x509.UniformResourceIdentifier(each) if "://" in each else x509.DNSName(each) for each in given)


def certified(folder: Path, name: str, server: Authority, *san: str, by: Authority = CLIENTS, days: float = 1.0) -> Tls:
    """The files of a client whose certificate has these names."""
    (folder / "ca.crt").write_bytes(server.pem)
    chain, key = by.sign(name, *names(*san), days=days)
    (folder / f"{name}.crt").write_bytes(chain)
    (folder / f"{name}.key").write_bytes(key)
    return Tls(folder / "ca.crt", folder / f"{name}.crt", folder / f"{name}.key")


@asynccontextmanager
async def mutual(folder: Path, server: Authority, *parts: str) -> AsyncIterator[App]:
    write_tls(folder, server)
    (folder / "clients.crt").write_bytes(CLIENTS.pem)
    (folder / "keys").write_text(json.dumps({"keys": [jwk(KEY, "k1")]}))
    file = callers_file(folder, *(parts or (MUTUAL, TABLE)))
    async with serving_here(folder / "data", callers=file, tenants="caller") as app:
        yield app


def count(address: str, tls: Tls | None, **given: str) -> int:
    with Client(address, tls=tls, timeout_s=10, **given) as client:  # type: ignore[arg-type]
        return client.statistics().case_count


def refusal(address: str, tls: Tls | None, kind: type[NotAllowed | Unready]) -> str:
    with pytest.raises(kind) as refused:
        count(address, tls)
    return str(refused.value)


@pytest.mark.system
async def test_a_certificate_names_its_caller(tmp_path: Path) -> None:
    server, other = authority("server-ca"), authority("other-ca")
    pacs = certified(tmp_path, "pacs", server, "PACS.example")
    auditor = certified(tmp_path, "auditor", server, "spiffe://example/auditor")
    async with mutual(tmp_path, server, MUTUAL, TOKENS, TABLE) as app:

        def add_one() -> str:
            with Client(app.address, tls=pacs) as client:
                (result,) = client.add([AddItem("1", picture(1), {})])
                return result.outcome

        assert await asyncio.to_thread(add_one) == "added"
        assert await asyncio.to_thread(count, app.address, pacs) == 1
        assert await asyncio.to_thread(count, app.address, auditor) == 0  # another tenant

        unknown = {
            "a name in the wrong place": certified(tmp_path, "dns:pacs.example", server),
            "a part of a name": certified(tmp_path, "sub", server, "pacs.example.evil.example"),
            "nobody": certified(tmp_path, "nobody", server, "nobody.example"),
            "two": certified(tmp_path, "two", server, "pacs.example", "spiffe://example/auditor"),
        }
        for why, tls in unknown.items():
            assert "does not know who asks" in await asyncio.to_thread(refusal, app.address, tls, NotAllowed), why
        stopped: dict[str, Tls | None] = {
            "another authority": certified(tmp_path, "fake", server, "pacs.example", by=other),
            "expired": certified(tmp_path, "old", server, "pacs.example", days=-1),
            "no certificate": Tls(tmp_path / "ca.crt"),
            "no encryption": None,
        }
        for why, strange in stopped.items():
            assert "--tls-ca" in await asyncio.to_thread(refusal, app.address, strange, Unready), why

        text = token(KEY, claims(time.time(), tenant="south"))
        assert await asyncio.to_thread(lambda: count(app.address, pacs, token=text)) == 0
        with pytest.raises(NotAllowed):  # a right certificate makes no wrong token good
            await asyncio.to_thread(lambda: count(app.address, pacs, token=text[:-8]))
        with pytest.raises(NotAllowed, match="role"), Client(app.address, tls=auditor) as client:
            await asyncio.to_thread(client.findings)


@pytest.mark.system
async def test_a_withdrawn_authority_lets_nobody_in(tmp_path: Path) -> None:
    """Also not by a session that TLS would resume: tickets end with the files that they were made under."""
    server, other = authority("server-ca"), authority("other-ca")
    old = certified(tmp_path, "old", server, "pacs.example")
    new = certified(tmp_path, "new", server, "pacs.example", by=other)
    async with mutual(tmp_path, server) as app:
        assert await asyncio.to_thread(count, app.address, old) == 0
        (tmp_path / "clients.crt").write_bytes(other.pem)
        assert await asyncio.to_thread(count, app.address, new) == 0
        await asyncio.to_thread(refusal, app.address, old, Unready)
        (tmp_path / "clients.crt").write_bytes(CLIENTS.pem + other.pem)
        for tls in (old, new):
            assert await asyncio.to_thread(count, app.address, tls) == 0


@pytest.mark.system
async def test_tls_below_1_2_is_refused(tmp_path: Path) -> None:
    server = authority("server-ca")
    async with mutual(tmp_path, server, TLS, TOKENS) as app:
        host, _, port = app.address.rpartition(":")

        def versions(least: ssl.TLSVersion, most: ssl.TLSVersion) -> str | None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.load_verify_locations(cadata=server.pem.decode())
            context.set_ciphers("ALL:@SECLEVEL=0")
            context.set_alpn_protocols(["h2"])
            context.minimum_version, context.maximum_version = least, most
            raw = socket.create_connection((host, int(port)), 10)
            with context.wrap_socket(raw, server_hostname="localhost") as wrapped:
                return wrapped.version()

        v = ssl.TLSVersion
        assert await asyncio.to_thread(versions, v.TLSv1_2, v.TLSv1_2) == "TLSv1.2"
        assert await asyncio.to_thread(versions, v.TLSv1_3, v.TLSv1_3) == "TLSv1.3"
        with pytest.warns(DeprecationWarning, match="TLSv1"), pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.to_thread(versions, v.TLSv1, v.TLSv1_1)


@pytest.mark.system
async def test_files_change_in_mid_load_and_no_call_fails(tmp_path: Path) -> None:
    """Keys, certificates and both authorities are replaced while clients call, each on new connections."""
    server = authority("server-ca")
    everyone = [server.pem]
    faults: list[object] = []
    done, calls = asyncio.Event(), 0

    async with mutual(tmp_path, server, TLS, TOKENS) as app:

        async def calling() -> None:
            nonlocal calls
            while not done.is_set():
                trusted = grpc.ssl_channel_credentials(b"".join(everyone))
                # Channels with the same options share a connection, which would hide what new ones get.
                options = [("grpc.use_local_subchannel_pool", 1)]
                text = token(KEY, claims(time.time()))
                async with grpc.aio.secure_channel(app.address, trusted, options=options) as channel:
                    stub = library_pb2_grpc.LibraryServiceStub(channel)
                    try:
                        await stub.GetStatistics(
                            library_pb2.GetStatisticsRequest(),
                            metadata=[("authorization", f"Bearer {text}")],
                            timeout=20,
                        )
                    except grpc.aio.AioRpcError as error:
                        faults.append((error.code(), error.details()))
                calls += 1

        load = [asyncio.create_task(calling()) for _ in range(3)]
        for number in range(5):
            renewed = authority(f"server-ca-{number}")
            everyone.append(renewed.pem)
            start = calls
            while calls < start + 5:
                await asyncio.sleep(0.01)
            (tmp_path / "tls.crt").write_bytes(b"half a change")
            await asyncio.sleep(0.05)
            write_tls(tmp_path, renewed)
            start = calls
            while calls < start + 5:
                await asyncio.sleep(0.01)
        done.set()
        await asyncio.gather(*load)
        assert faults == []
        only_newest = grpc.ssl_channel_credentials(everyone[-1])
        async with grpc.aio.secure_channel(app.address, only_newest) as channel:
            await asyncio.wait_for(channel.channel_ready(), 10)


def test_files_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    write_tls(tmp_path, authority("ca"))
    files = TlsFiles(tmp_path / "tls.crt", tmp_path / "tls.key")
    Credentials(files)
    good = (tmp_path / "tls.key").read_bytes()
    for key, why in ((b"", "private key"), (authority("x").sign("x")[1], "not the key of")):
        (tmp_path / "tls.key").write_bytes(key)
        with pytest.raises(InvalidInput, match=why):
            Credentials(files)
    (tmp_path / "tls.key").write_bytes(good)
    (tmp_path / "tls.crt").write_bytes(b"")
    with pytest.raises(InvalidInput, match="no PEM certificate"):
        Credentials(files)
    os.unlink(tmp_path / "tls.crt")
    with pytest.raises(InvalidInput, match="can not be read"):
        Credentials(files)
