"""The public keys that tokens are signed with: from a file, or from the provider that makes the tokens.

Keys are only ever asymmetric, and each tells by itself which algorithms it is for: what a token claims of its own
algorithm chooses nothing.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from nearcase.errors import InvalidInput

if TYPE_CHECKING:
    from pathlib import Path

log = logging.getLogger(__name__)

LEAST_RSA_BITS = 2048
"""NIST SP 800-131A rev. 2: shorter RSA keys are disallowed."""

MAX_KEYS = 64
MAX_BYTES = 2**20
_RSA = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
_CURVES = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
ALGORITHMS = frozenset({*_RSA, *_CURVES.values(), "EdDSA"})
"""All that can be; `none` and the shared secrets of HS256 and its like are not among them."""

_PEM_END = "-----END PUBLIC KEY-----"


@dataclass(frozen=True, slots=True)
class Key:
    """One public key; without a name it is tried for tokens of any name."""

    name: str
    public: Any
    algorithms: frozenset[str]


class Keys(Protocol):
    """Where keys come from."""

    async def named(self, name: str) -> tuple[Key, ...]:
        """Returns the keys that a token with this `kid` may be signed with; "" is a token without one.

        Raises:
            Unready: With reason KEYS_UNREACHABLE: there are no keys now.
        """
        ...


class KeyFile:
    """Keys of a file, which is read again when it changes; a wrong new file leaves the old keys in use.

    Raises:
        InvalidInput: It can not be read, or holds no key that may be used.
    """

    def __init__(self, file: Path) -> None:
        self._file, self._stamp = file, _stamp(file)
        self._keys = read_keys(_text(file))

    async def named(self, name: str) -> tuple[Key, ...]:
        """Looks at the file's date first; that costs a few microseconds."""
        stamp = _stamp(self._file)
        if stamp != self._stamp:
            self._stamp = stamp
            self._read_again()
        return matching(self._keys, name)

    def _read_again(self) -> None:
        try:
            self._keys = read_keys(_text(self._file))
        except InvalidInput as error:
            log.error("the changed key file is not used, the keys before it stay: %s", error)
            return
        log.warning("the key file changed: %d keys are in use", len(self._keys))


def matching(keys: tuple[Key, ...], name: str) -> tuple[Key, ...]:
    """Returns the keys of a name, and those without one; without a name all."""
    return tuple(key for key in keys if not name or key.name in ("", name))


def read_keys(text: str) -> tuple[Key, ...]:
    """Returns the public keys of a JWKS (RFC 7517) or of PEM text, but those that tokens may not be signed with.

    Raises:
        InvalidInput: The text is neither, a private key lies in it, or no key is left.
    """
    if "PRIVATE KEY" in text:
        raise InvalidInput("expected public keys, got a private key: it stays with who signs tokens", field="keys")
    keys = _from_pem(text) if "-----BEGIN" in text else _from_jwks(text)
    if not keys:
        raise InvalidInput("expected keys for signatures (RSA from 2048 bits, P-256, P-384, P-521, Ed25519), got none")
    return keys


def _from_pem(text: str) -> tuple[Key, ...]:
    keys = []
    for part in text.split(_PEM_END)[:-1][:MAX_KEYS]:
        try:
            public = load_pem_public_key((part + _PEM_END).encode())
        except (ValueError, UnsupportedAlgorithm) as error:
            raise InvalidInput(f"a PEM public key can not be read ({type(error).__name__})", field="keys") from None
        if algorithms := _algorithms(public):
            keys.append(Key("", public, algorithms))
    return tuple(keys)


def _from_jwks(text: str) -> tuple[Key, ...]:
    try:
        listed = json.loads(text)["keys"]
        if not isinstance(listed, list):
            raise TypeError
    except (ValueError, KeyError, TypeError, RecursionError):
        raise InvalidInput("expected a JWKS or PEM public keys, got other text", field="keys") from None
    found = (_from_jwk(entry) for entry in listed[:MAX_KEYS])
    return tuple(key for key in found if key)


def _from_jwk(entry: object) -> Key | None:
    """None for what is not for verifying signatures; a provider may list keys of kinds that are not known here."""
    if not isinstance(entry, dict) or entry.get("kty") not in ("RSA", "EC", "OKP") or "d" in entry:
        return None
    if entry.get("use", "sig") != "sig" or "verify" not in entry.get("key_ops", ["verify"]):
        return None
    try:
        public = jwt.PyJWK(entry).key
    except (jwt.PyJWTError, ValueError, TypeError, KeyError):
        return None
    algorithms, name, only = _algorithms(public), entry.get("kid", ""), entry.get("alg")
    if only is not None:
        algorithms = algorithms & {only} if isinstance(only, str) else frozenset()
    return Key(name, public, algorithms) if algorithms and isinstance(name, str) else None


def _algorithms(public: Any) -> frozenset[str]:
    """What a key of this kind may have signed with; empty for kinds that are too weak or unknown."""
    if isinstance(public, RSAPublicKey):
        return _RSA if public.key_size >= LEAST_RSA_BITS else frozenset()
    if isinstance(public, EllipticCurvePublicKey):
        return frozenset({_CURVES[public.curve.name]} if public.curve.name in _CURVES else ())
    return frozenset({"EdDSA"} if isinstance(public, Ed25519PublicKey) else ())


def _text(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            return opened.read(MAX_BYTES).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"the key file {file.name} can not be read: {type(error).__name__}", field="keys") from None


def _stamp(file: Path) -> tuple[int, ...] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
