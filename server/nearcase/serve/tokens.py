"""Tokens (JWT, RFC 7519) and what they must hold, by the advice of RFC 8725: fixed algorithms, issuer, audience."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jwt

from nearcase.errors import NotAllowed
from nearcase.serve.caller import Caller, is_tenant
from nearcase.serve.roles import ROLES

if TYPE_CHECKING:
    from nearcase.clock import Clock
    from nearcase.serve.keys import Keys

LEEWAY_S = 30.0
"""How far the clocks of two machines may lie apart."""

MAX_BYTES = 8192
"""Of a token; gRPC takes about as much metadata."""

MAX_NAME = 256
MAX_SECONDS = 1e12
_SHAPE = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_BEARER = re.compile(r"bearer +(\S+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Claims:
    """What a token must say, and where it says the rest.

    A claim's name may be a path with dots, as in realm_access.roles, where the token has no claim of that very name.
    """

    issuer: str
    audience: str
    roles_claim: str = "roles"
    role_prefix: str = ""
    """What roles here begin with there, so that another program's "admin" is not ours."""
    tenant_claim: str = "tenant"


class Tokens:
    """Makes callers of tokens.

    Args:
        keys: Whom to believe.
        claims: What to look for.
        clock: The time; it is taken as it is, so a wrong clock is wrong by that much about what is valid.
        with_tenants: Each token must name its tenant.
    """

    def __init__(self, keys: Keys, claims: Claims, clock: Clock, *, with_tenants: bool) -> None:
        self._keys, self._claims, self._clock, self._with_tenants = keys, claims, clock, with_tenants

    async def caller(self, authorization: str | bytes) -> Caller:
        """Returns whom the header `authorization` names.

        Raises:
            NotAllowed: It is no token that is valid here and now; the message is for the log, and holds none of it.
            Unready: There are no keys to check it with.
        """
        token = _bearer(authorization)
        name = _header(token)
        payload = _verified(token, await self._keys.named(name), self._claims)
        self._check_time(payload)
        tenant = _claim(payload, self._claims.tenant_claim) if self._with_tenants else ""
        if self._with_tenants and not is_tenant(tenant):
            raise NotAllowed("the token names no tenant")
        return Caller(
            _subject(payload),
            str(tenant),
            roles_of(_claim(payload, self._claims.roles_claim), self._claims.role_prefix),
            _seconds(payload, "exp") + LEEWAY_S,
        )

    def _check_time(self, payload: dict[str, Any]) -> None:
        now_s = self._clock.now_s()
        if now_s > _seconds(payload, "exp") + LEEWAY_S:
            raise NotAllowed("the token has expired")
        for name in ("nbf", "iat"):
            if name in payload and now_s < _seconds(payload, name) - LEEWAY_S:
                raise NotAllowed(f"the token is not valid yet ({name})")


def roles_of(claim: object, prefix: str = "") -> frozenset[str]:
    """Returns the roles in a list, or in text with spaces; what is no role here is another program's."""
    words = claim.split() if isinstance(claim, str) else claim if isinstance(claim, list) else []
    ours = [word for word in words if isinstance(word, str) and word.startswith(prefix)]
    return frozenset(word.removeprefix(prefix) for word in ours) & ROLES


def _bearer(authorization: str | bytes) -> str:
    found = _BEARER.fullmatch(authorization) if isinstance(authorization, str) else None
    if not found or len(found[1]) > MAX_BYTES or not _SHAPE.fullmatch(found[1]):
        raise NotAllowed("the header is no bearer token")
    return found[1]


def _header(token: str) -> str:
    """Returns the name of the key that the token claims; where keys lie (jku, x5u, jwk) is never taken from a token."""
    try:
        header = jwt.get_unverified_header(token)
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
        raise NotAllowed("the token's header can not be read") from None
    name = header.get("kid", "")
    if "crit" in header or not isinstance(name, str):
        raise NotAllowed("the token's header asks for what is not known here")
    return name


def _verified(token: str, keys: tuple[Any, ...], claims: Claims) -> dict[str, Any]:
    why = "no key has the name that the token claims"
    for key in keys:
        try:
            return jwt.decode(
                token,
                key.public,
                algorithms=sorted(key.algorithms),
                issuer=claims.issuer,
                audience=claims.audience,
                options={
                    "require": ["exp", "iss", "aud", "sub"],
                    "verify_exp": False,  # this and the next two are checked by our own clock
                    "verify_nbf": False,
                    "verify_iat": False,
                },
            )
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as error:
            why = _WHY.get(type(error), "the token is wrong")
            if not isinstance(error, (jwt.InvalidSignatureError, jwt.InvalidAlgorithmError, jwt.InvalidKeyError)):
                break  # the key is the right one
    raise NotAllowed(why)


_WHY: dict[type[Exception], str] = {
    jwt.InvalidSignatureError: "the token is not signed by a key that is known",
    jwt.InvalidAlgorithmError: "the token's algorithm is not the key's",
    jwt.InvalidIssuerError: "the token is of another issuer",
    jwt.InvalidAudienceError: "the token is for another audience",
    jwt.MissingRequiredClaimError: "the token lacks one of exp, iss, aud and sub",
}


def _seconds(payload: dict[str, Any], name: str) -> float:
    value = payload[name]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not -MAX_SECONDS < value < MAX_SECONDS:
        raise NotAllowed(f"the token's {name} is no time")
    return float(value)


def _subject(payload: dict[str, Any]) -> str:
    """The name goes into records."""
    subject = payload["sub"]
    if not is_name(subject):
        raise NotAllowed("the token's sub is no name")
    return str(subject)


def is_name(subject: object) -> bool:
    """Returns whether this can be whose token it is: 1 to MAX_NAME printable letters."""
    return isinstance(subject, str) and 1 <= len(subject) <= MAX_NAME and subject.isprintable()


def _claim(payload: dict[str, Any], path: str) -> object:
    if path in payload:
        return payload[path]
    found: object = payload
    for part in path.split("."):
        if not isinstance(found, dict) or part not in found:
            return None
        found = found[part]
    return found
