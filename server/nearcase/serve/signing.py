"""Tokens for a site without a provider: a key pair of its own, and tokens signed with it."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from nearcase.errors import InvalidInput
from nearcase.serve.tokens import MAX_NAME, is_name

if TYPE_CHECKING:
    from pathlib import Path

MAX_DAYS = 366.0
"""A token can not be called back, so none is for ever."""

LOCAL_ISSUER = "nearcase-local"
AUDIENCE = "nearcase"


@dataclass(frozen=True, slots=True)
class Grant:
    """What a token says."""

    name: str
    roles: tuple[str, ...]
    tenant: str = ""
    days: float = 30.0
    issuer: str = LOCAL_ISSUER
    audience: str = AUDIENCE


def new_key(file: Path) -> Path:
    """Writes a private key (Ed25519, RFC 8032) that only its owner can read, and returns the file of its public key.

    Raises:
        InvalidInput: One of the two files is there already.
    """
    public_file = file.with_name(file.name + ".pub")
    key = Ed25519PrivateKey.generate()
    write_new(file, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), mode=0o600)
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    try:
        write_new(public_file, public, mode=0o644)
    except BaseException:
        file.unlink()
        raise
    return public_file


def issue(file: Path, grant: Grant, now_s: float) -> str:
    """Returns a signed token.

    Args:
        file: Of the private key.
        grant: What it allows.
        now_s: From when, in seconds since 1970.

    Raises:
        InvalidInput: The key can not be read, others can read it too, the days are not 0 to MAX_DAYS, or the
            name is none.
    """
    if not 0 < grant.days <= MAX_DAYS:
        raise InvalidInput(f"expected up to {MAX_DAYS:g} days, got {grant.days:g}", field="days")
    if not is_name(grant.name):
        raise InvalidInput(f"expected a name of 1 to {MAX_NAME} letters on one line", field="name")
    claims: dict[str, object] = {
        "iss": grant.issuer,
        "aud": grant.audience,
        "sub": grant.name,
        "iat": int(now_s),
        "nbf": int(now_s),
        "exp": int(now_s + grant.days * 86400),
        "roles": list(grant.roles),
    }
    if grant.tenant:
        claims["tenant"] = grant.tenant
    return jwt.encode(claims, _private(file), algorithm="EdDSA")


def write_new(file: Path, data: bytes, *, mode: int) -> None:
    """Writes a file that was not there, with its rights from the first moment; raises InvalidInput where it was."""
    try:
        number = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    except FileExistsError:
        raise InvalidInput(f"{file.name} is there already, and nothing is overwritten", field="out") from None
    with os.fdopen(number, "wb") as opened:
        opened.write(data)
        opened.flush()
        os.fsync(opened.fileno())


def _private(file: Path) -> Ed25519PrivateKey:
    if stat.S_IMODE(file.stat().st_mode) & 0o077:
        raise InvalidInput(f"{file.name} can be read by others; run: chmod 600 {file.name}", field="key")
    try:
        key = load_pem_private_key(file.read_bytes(), password=None)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise InvalidInput(f"{file.name} is no private key that `nearcase token new-key` made", field="key")
    return key
