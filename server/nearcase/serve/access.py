"""The file of the setting `callers`: how callers are known, and what each may ask. Nothing in it is a secret.

An unknown key, or one that is missing, stops the start.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nearcase.errors import InvalidInput
from nearcase.serve.caller import Caller, is_tenant
from nearcase.serve.certificates import PREFIXES
from nearcase.serve.credentials import TlsFiles
from nearcase.serve.roles import check_roles
from nearcase.serve.signing import AUDIENCE
from nearcase.serve.tokens import Claims


@dataclass(frozen=True, slots=True)
class TokenAccess:
    """Callers with tokens: what a token must say, and a file or an https address with the keys."""

    claims: Claims
    keys: Path | str


@dataclass(frozen=True, slots=True)
class Access:
    """Who may call; at least one of tokens and certificates is there."""

    tls: TlsFiles | None
    tokens: TokenAccess | None
    certificates: Mapping[str, Caller]
    requests_per_s: float
    """Of one caller. A reading room's viewer asks one a second, a gateway some ten."""
    bytes_in_flight: int
    """Of one caller: two of the largest files that may be sent in chunks."""


_TOP: dict[str, type | tuple[type, ...]] = {
    "requests_per_s": (int, float),
    "bytes_in_flight": int,
    "tls": dict,
    "tokens": dict,
    "certificate": list,
}
_TLS: dict[str, type | tuple[type, ...]] = {"certificate": str, "key": str, "client_ca": str}
_TOKENS: dict[str, type | tuple[type, ...]] = {
    "issuer": str,
    "audience": str,
    "keys": str,
    "roles_claim": str,
    "role_prefix": str,
    "tenant_claim": str,
}
_CERTIFICATE: dict[str, type | tuple[type, ...]] = {"identity": str, "roles": list, "tenant": str}


def read_access(file: Path, *, with_tenants: bool, largest_bytes: int) -> Access:
    """Returns what the file says; paths in it are relative to it.

    Args:
        file: TOML.
        with_tenants: Each certificate must have its tenant; without, none may.
        largest_bytes: The largest request that the server takes, which one caller must be able to send.

    Raises:
        InvalidInput: It can not be read, or says what can not be meant.
    """
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidInput(f"callers file {file.name}: {error}", field="callers") from None
    _check(table, _TOP, "")
    access = Access(
        tls=_tls(table["tls"], file.parent) if "tls" in table else None,
        tokens=_tokens(table["tokens"], file.parent) if "tokens" in table else None,
        certificates=_certificates(table.get("certificate", []), with_tenants=with_tenants),
        requests_per_s=float(table.get("requests_per_s", 100.0)),
        bytes_in_flight=table.get("bytes_in_flight", 2 * largest_bytes),
    )
    _check_whole(access, largest_bytes)
    return access


def _check_whole(access: Access, largest_bytes: int) -> None:
    if not access.tokens and not access.certificates:
        raise InvalidInput("callers file: expected [tokens] or [[certificate]], so that somebody may call")
    client_ca = access.tls.client_ca if access.tls else None
    if access.certificates and not client_ca:
        raise InvalidInput("callers file: [[certificate]] is given, expected tls.client_ca, which verifies them")
    if not 1 <= access.requests_per_s <= 1e6:
        raise InvalidInput(f"callers file: expected requests_per_s from 1 to 1e6, got {access.requests_per_s:g}")
    if not largest_bytes <= access.bytes_in_flight <= 2**40:
        message = f"expected bytes_in_flight from {largest_bytes}, the largest request, got {access.bytes_in_flight}"
        raise InvalidInput(f"callers file: {message}")


def _tls(table: dict[str, Any], folder: Path) -> TlsFiles:
    _check(table, _TLS, "tls.", needed=("certificate", "key"))
    client_ca = folder / table["client_ca"] if "client_ca" in table else None
    return TlsFiles(folder / table["certificate"], folder / table["key"], client_ca)


def _tokens(table: dict[str, Any], folder: Path) -> TokenAccess:
    _check(table, _TOKENS, "tokens.", needed=("issuer", "keys"))
    given = {key: text for key, text in table.items() if key != "keys"}
    empty = sorted(key for key, text in table.items() if not text)
    if empty:
        raise InvalidInput(f"callers file: tokens.{empty[0]} is empty", field=empty[0])
    keys = table["keys"]
    return TokenAccess(Claims(**({"audience": AUDIENCE} | given)), keys if "://" in keys else folder / keys)


def _certificates(rows: list[Any], *, with_tenants: bool) -> dict[str, Caller]:
    found: dict[str, Caller] = {}
    for row in rows:
        if not isinstance(row, dict):
            raise InvalidInput("callers file: expected [[certificate]] to be tables", field="certificate")
        _check(row, _CERTIFICATE, "certificate.", needed=("identity", "roles"))
        name, tenant = row["identity"], row.get("tenant", "")
        name = name.lower() if name.startswith("dns:") else name
        if not name.startswith(PREFIXES) or name in found or name in PREFIXES:
            raise InvalidInput(f"callers file: expected identity once, of {', '.join(PREFIXES)}NAME, got {name!r}")
        if with_tenants != is_tenant(tenant) or (tenant and not with_tenants):
            word = 'a tenant, as tenants = "caller"' if with_tenants else 'no tenant without tenants = "caller"'
            raise InvalidInput(f"callers file: expected {word} for {name!r}", field="tenant")
        check_roles([str(role) for role in row["roles"]])
        found[name] = Caller(name, tenant, frozenset(row["roles"]))
    return found


def _check(
    table: Mapping[str, Any], kinds: Mapping[str, type | tuple[type, ...]], where: str, needed: tuple[str, ...] = ()
) -> None:
    for key, value in table.items():
        if key not in kinds:
            message = f"callers file: unknown key {where + key!r}; known: {', '.join(sorted(kinds))}"
            raise InvalidInput(message, field=key)
        if isinstance(value, bool) or not isinstance(value, kinds[key]):
            raise InvalidInput(f"callers file: {where}{key} is {value!r}, of another type than expected", field=key)
    for key in needed:
        if key not in table:
            raise InvalidInput(f"callers file: expected {where}{key}, got none", field=key)
