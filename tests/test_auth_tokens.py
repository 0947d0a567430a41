"""Tokens: what is believed, for how long, and by whose key. Docs: docs/security.md."""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import stat
from pathlib import Path
from typing import Any

import pytest
from auth_files import (
    AUDIENCE,
    ISSUER,
    NOW_S,
    HandClock,
    authority,
    claims,
    forged,
    jwk,
    pem_of,
    providing,
    public_pem,
    rsa_key,
    token,
    write_tls,
)
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from nearcase.errors import InvalidInput, NotAllowed, Unready
from nearcase.serve import key_url, signing
from nearcase.serve.caller import Caller
from nearcase.serve.key_url import KEEP_S, PAUSE_S, REFRESH_S, KeyUrl, check_url
from nearcase.serve.keys import KeyFile, read_keys
from nearcase.serve.tokens import LEEWAY_S, Claims, Tokens, roles_of

KEY, OTHER = rsa_key(), rsa_key()
EDGE = ec.generate_private_key(ec.SECP256R1())


@pytest.fixture(name="file")
def key_file(tmp_path: Path) -> Path:
    file = tmp_path / "keys"
    file.write_text(json.dumps({"keys": [jwk(KEY, "k1"), jwk(EDGE, "e1"), {"kty": "oct", "k": "AAAA", "kid": "s1"}]}))
    return file


def tokens(file: Path, clock: HandClock | None = None, **changed: str) -> Tokens:
    wanted = Claims(ISSUER, AUDIENCE, **changed)
    return Tokens(KeyFile(file), wanted, clock or HandClock(), with_tenants=True)


def ask(known: Tokens, text: str) -> Caller:
    return asyncio.run(known.caller(f"Bearer {text}"))


def test_a_right_token_names_its_caller(file: Path) -> None:
    expected = Caller("pacs", "north", frozenset({"search"}))
    assert ask(tokens(file), token(KEY, claims(NOW_S))) == expected
    assert ask(tokens(file), token(EDGE, claims(NOW_S), "e1", "ES256")) == expected
    assert ask(tokens(file), token(KEY, claims(NOW_S), algorithm="PS384")) == expected
    assert asyncio.run(tokens(file).caller(f"bearer  {token(KEY, claims(NOW_S))}")) == expected


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (token(KEY, claims(NOW_S, exp=NOW_S - LEEWAY_S - 1)), "expired"),
        (token(KEY, claims(NOW_S, nbf=NOW_S + LEEWAY_S + 1)), "not valid yet"),
        (token(KEY, claims(NOW_S, iat=NOW_S + LEEWAY_S + 1)), "not valid yet"),
        (token(KEY, claims(NOW_S, aud="another")), "audience"),
        (token(KEY, claims(NOW_S, aud=None)), "lacks"),
        (token(KEY, claims(NOW_S, iss="https://else.example")), "issuer"),
        (token(KEY, claims(NOW_S, iss=None)), "lacks"),
        (token(KEY, claims(NOW_S, exp=None)), "lacks"),
        (token(KEY, claims(NOW_S, sub=None)), "lacks"),
        (token(KEY, claims(NOW_S, sub="a\nb")), "no name"),
        (token(KEY, claims(NOW_S, exp=True)), "no time"),
        (token(KEY, claims(NOW_S, exp=10**400)), "no time"),
        (token(KEY, claims(NOW_S, tenant=None)), "no tenant"),
        (token(KEY, claims(NOW_S, tenant="North")), "no tenant"),
        (token(KEY, claims(NOW_S, tenant=["north", "south"])), "no tenant"),
        (token(OTHER, claims(NOW_S)), "not signed"),
        (token(KEY, claims(NOW_S), "k2"), "no key"),
        (token(KEY, claims(NOW_S), "e1"), "algorithm"),
        (token(KEY, claims(NOW_S), crit=["exp"]), "header"),
        (forged(claims(NOW_S), "none"), "algorithm"),
        (forged(claims(NOW_S), "None"), "algorithm"),
        (forged(claims(NOW_S), "HS256", public_pem(KEY)), "algorithm"),
        (forged(claims(NOW_S), "HS256", b"\0\0\0", "s1"), "no key"),
        ("a.b.c", "header"),
    ],
)
def test_a_wrong_token_names_nobody(file: Path, text: str, why: str) -> None:
    with pytest.raises(NotAllowed, match=why) as refused:
        ask(tokens(file), text)
    assert text not in str(refused.value)


def test_clocks_may_differ_by_the_leeway(file: Path) -> None:
    clock = HandClock()
    known, text = tokens(file, clock), token(KEY, claims(NOW_S))
    for wall_s, valid in ((-31, False), (-29, True), (629, True), (631, False), (-86400, False), (0, True)):
        clock.wall_s = NOW_S + wall_s
        if valid:
            assert ask(known, text).name == "pacs"
            continue
        with pytest.raises(NotAllowed):
            ask(known, text)


def test_a_token_can_not_point_at_its_own_key(file: Path) -> None:
    """RFC 8725 section 3.10: jku, x5u and jwk in a header are the stranger's own words."""
    for header in ({"jwk": jwk(OTHER, "k1")}, {"jku": "http://127.0.0.1:1/keys"}, {"x5u": "http://127.0.0.1:1/"}):
        with pytest.raises(NotAllowed, match="not signed"):
            ask(tokens(file), token(OTHER, claims(NOW_S), **header))


@settings(max_examples=300)
@given(
    st.one_of(
        st.text(max_size=200),
        st.binary(max_size=200),
        st.text("abcXYZ019-_.", max_size=300).map(lambda text: f"Bearer {text}"),
        st.recursive(st.none() | st.integers() | st.text(max_size=5), lambda inner: st.lists(inner) | inner).map(
            lambda value: "Bearer " + forged({"sub": value, "exp": value}, str(value)[:9])
        ),
        st.tuples(st.integers(0, 600), st.sampled_from("AZ_-.!\0 é")).map(
            lambda change: (
                "Bearer "
                + (good := token(EDGE, claims(NOW_S), "e1", "ES256"))[: change[0]]
                + change[1]
                + good[change[0] + 1 :]
            )
        ),
    )
)
def test_whatever_the_header_is_only_a_whole_token_passes(header: str | bytes) -> None:
    known = Tokens(_Fixed(), Claims(ISSUER, AUDIENCE), HandClock(), with_tenants=True)
    try:
        caller = asyncio.run(known.caller(header))
    except NotAllowed:
        return
    # A change that changes no byte: padding bits at the end of a base64 text.
    assert caller == Caller("pacs", "north", frozenset({"search"}))


class _Fixed:
    keys = read_keys(public_pem(EDGE).decode())

    async def named(self, name: str) -> Any:
        return self.keys


def test_deep_json_in_a_token_is_a_refusal(file: Path) -> None:
    import base64

    deep = base64.urlsafe_b64encode(b"[" * 5000).rstrip(b"=").decode()
    with pytest.raises(NotAllowed):
        ask(tokens(file), f"{deep}.e30.AA")
    with pytest.raises(NotAllowed, match="no bearer"):
        ask(tokens(file), f"{'A' * 9000}.e30.AA")


def test_roles_come_from_where_the_site_says(file: Path) -> None:
    assert roles_of(["search", "root", 3]) == {"search"}
    assert roles_of("add  erase openid") == {"add", "erase"}
    assert roles_of(["nearcase-search", "admin", "nearcase-"], "nearcase-") == {"search"}
    assert roles_of(None) == roles_of({"search": 1}) == frozenset()
    nested = token(KEY, claims(NOW_S, realm_access={"roles": ["audit"]}, org={"id": "south"}))
    caller = ask(tokens(file, roles_claim="realm_access.roles", tenant_claim="org.id"), nested)
    assert (caller.roles, caller.tenant) == (frozenset({"audit"}), "south")


# Keys


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "JWKS"),
        ("[]", "JWKS"),
        ("[" * 100_000, "JWKS"),
        ('{"keys": []}', "got none"),
        (json.dumps({"keys": [{"kty": "oct", "k": "c2VjcmV0"}, 3, {}]}), "got none"),
        (json.dumps({"keys": [jwk(KEY, "k1", use="enc")]}), "got none"),
        (json.dumps({"keys": [jwk(KEY, "k1", alg="HS256")]}), "got none"),
        (json.dumps({"keys": [jwk(rsa_key(1024), "k1")]}), "got none"),
        (pem_of(KEY).decode(), "private key"),
        ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", "can not be read"),
    ],
)
def test_keys_that_may_not_be_used_are_refused(text: str, why: str) -> None:
    with pytest.raises(InvalidInput, match=why):
        read_keys(text)


def test_a_key_file_is_read_again_when_it_changes(file: Path) -> None:
    known, old, new = tokens(file), token(KEY, claims(NOW_S)), token(OTHER, claims(NOW_S), "any")
    assert ask(known, old)
    file.write_text("half a cha")
    assert ask(known, old)
    file.unlink()
    assert ask(known, old)
    file.write_bytes(public_pem(OTHER))
    assert ask(known, new)
    with pytest.raises(NotAllowed):
        ask(known, old)


async def test_a_providers_keys_are_kept_and_renewed() -> None:
    clock = HandClock()
    with providing(jwk(KEY, "k1")) as provider:
        keys = KeyUrl(provider.url, clock)
        await keys.start()
        known = Tokens(keys, Claims(ISSUER, AUDIENCE), clock, with_tenants=True)
        first, second = (f"Bearer {token(key, claims(NOW_S), name)}" for key, name in ((KEY, "k1"), (OTHER, "k2")))
        assert await known.caller(first)
        provider.keys = [jwk(KEY, "k1"), jwk(OTHER, "k2")]
        with pytest.raises(NotAllowed):  # asked a moment ago
            await known.caller(second)
        clock.run_s += PAUSE_S
        clock.wall_s -= 1e6  # a clock that jumps back makes no fetch early or late
        with pytest.raises(NotAllowed, match="not valid yet"):
            await known.caller(second)
        clock.wall_s += 1e6
        assert await known.caller(second)
        assert provider.asked == 2
        strangers = [f"Bearer {token(KEY, claims(NOW_S), str(number))}" for number in range(50)]
        clock.run_s += PAUSE_S
        refused = await asyncio.gather(*map(known.caller, strangers), return_exceptions=True)
        assert {type(each) for each in refused} == {NotAllowed}
        assert provider.asked == 3

        provider.status = 503
        clock.run_s += KEEP_S - PAUSE_S
        assert await known.caller(first)  # the provider is down
        clock.run_s += 2 * PAUSE_S
        with pytest.raises(Unready, match="can not be had"):
            await known.caller(first)
        provider.status, provider.keys = 200, [jwk(OTHER, "k2")]
        clock.run_s += PAUSE_S
        assert await known.caller(second)

        provider.keys = [jwk(KEY, "k1")]
        clock.run_s += REFRESH_S + 1
        await known.caller(second)  # starts the fetch that takes the key away
        for _ in range(500):
            await asyncio.sleep(0.01)
            if not await keys.named("k2"):
                break
        with pytest.raises(NotAllowed):
            await known.caller(second)
        await keys.close()


async def test_a_provider_is_believed_by_its_certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ca, other, context = authority("ca"), authority("other"), ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    write_tls(tmp_path, ca)
    context.load_cert_chain(tmp_path / "tls.crt", tmp_path / "tls.key")
    with providing(jwk(KEY, "k1"), tls=context) as provider:
        for trusted, is_believed in ((other, False), (ca, True)):
            (tmp_path / "ca.crt").write_bytes(trusted.pem)
            monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.crt"))
            keys = KeyUrl(provider.url, HandClock())
            if is_believed:
                await keys.start()
                assert await keys.named("k1")
                continue
            with pytest.raises(Unready, match="provider"):
                await keys.start()
        assert provider.asked == 1


@pytest.mark.parametrize("fault", ["down", "moved", "empty", "html"])
async def test_a_provider_without_keys_stops_the_start(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_url, "TIMEOUT_S", 1.0)
    with providing(jwk(KEY, "k1")) as provider:
        url = provider.url
        if fault == "moved":
            provider.status, provider.location = 302, url
        if fault == "empty":
            provider.keys = []
        if fault == "html":
            provider.status = 404
        if fault == "down":
            url = "http://127.0.0.1:1/keys"
        with pytest.raises(Unready, match="provider"):
            await KeyUrl(url, HandClock()).start()


@pytest.mark.parametrize(
    "url", ["http://login.example/keys", "file:///etc/passwd", "https://a:b@login.example/", "https://", "ftp://x/"]
)
def test_keys_come_from_no_unsafe_address(url: str) -> None:
    with pytest.raises(InvalidInput, match="https"):
        check_url(url)


# Without a provider


def test_a_site_signs_its_own_tokens(tmp_path: Path) -> None:
    private = tmp_path / "site.key"
    public = signing.new_key(private)
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    grant = signing.Grant("pacs", ("search", "add"), "north", 1.0)
    text = signing.issue(private, grant, NOW_S)
    known = Tokens(KeyFile(public), Claims(signing.LOCAL_ISSUER, AUDIENCE), HandClock(), with_tenants=True)
    assert ask(known, text) == Caller("pacs", "north", frozenset({"search", "add"}))
    with pytest.raises(InvalidInput, match="there already"):
        signing.new_key(private)
    for days in (0.0, 400.0, float("nan")):
        with pytest.raises(InvalidInput, match="days"):
            signing.issue(private, signing.Grant("pacs", ("search",), days=days), NOW_S)
    os.chmod(private, 0o640)
    with pytest.raises(InvalidInput, match="chmod 600"):
        signing.issue(private, grant, NOW_S)
    with pytest.raises(InvalidInput, match="private key"):
        KeyFile(private)


def test_a_half_made_key_pair_is_taken_away(tmp_path: Path) -> None:
    (tmp_path / "site.key.pub").write_text("another's")
    with pytest.raises(InvalidInput, match="there already"):
        signing.new_key(tmp_path / "site.key")
    assert not (tmp_path / "site.key").exists()


def test_an_edwards_key_in_a_pem_file_is_enough(tmp_path: Path) -> None:
    key = Ed25519PrivateKey.generate()
    file = tmp_path / "keys"
    file.write_bytes(public_pem(KEY) + public_pem(key))
    assert ask(tokens(file), token(key, claims(NOW_S), "any", "EdDSA")).name == "pacs"
