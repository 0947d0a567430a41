"""Puts the gate together from the settings, and refuses a server that strangers could reach."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nearcase.errors import InvalidInput, NotAllowed
from nearcase.serve.access import Access, TokenAccess, read_access
from nearcase.serve.caller import Caller, Metadata, anyone, values
from nearcase.serve.certificates import Certificates
from nearcase.serve.credentials import Credentials
from nearcase.serve.gate import Gate
from nearcase.serve.key_url import KeyUrl
from nearcase.serve.keys import KeyFile, Keys
from nearcase.serve.limits import Limits
from nearcase.serve.tokens import Tokens
from nearcase.settings import LOOPBACK

if TYPE_CHECKING:
    from nearcase.clock import Clock
    from nearcase.serve.context import Context
    from nearcase.settings import Settings

log = logging.getLogger(__name__)
AUTHORIZATION = "authorization"


@dataclass(frozen=True, slots=True)
class Security:
    """What stands between the network and the handlers."""

    gate: Gate
    credentials: Credentials | None
    says: str
    """One sentence for whoever starts the server."""
    keys: Keys | None = None

    async def close(self) -> None:
        """Ends a fetch of keys that is under way."""
        if isinstance(self.keys, KeyUrl):
            await self.keys.close()


async def open_security(settings: Settings, clock: Clock) -> Security:
    """Returns the gate and the credentials.

    Raises:
        InvalidInput: The callers file or one that it names is wrong, or strangers could reach the server, or read what
            callers send, and `insecure` is not set.
        Unready: The token provider does not give its keys.
    """
    largest = max(settings.max_message_bytes, settings.max_image_bytes)
    if settings.callers is None:
        if settings.tenants == "caller":
            raise InvalidInput('setting tenants is "caller", expected callers with it', field="tenants")
        says = _check_reach(settings, "no callers are set up, so nobody is asked who they are")
        return Security(
            Gate(_Anyone(settings.has_tenants), clock, is_open=True, idle_s=settings.stream_idle_s), None, says
        )
    if settings.tenants == "metadata":
        message = 'setting tenants is "metadata", and callers are set up: expected "caller" or "none"'
        raise InvalidInput(message, field="tenants")
    access = await asyncio.to_thread(
        read_access, settings.callers, with_tenants=settings.has_tenants, largest_bytes=largest
    )
    says = "callers are asked who they are, and connections are encrypted"
    if access.tls is None:
        says = _check_reach(settings, "callers are asked who they are, but nothing is encrypted")
    credentials = await asyncio.to_thread(Credentials, access.tls) if access.tls else None
    keys = await _keys(access.tokens, clock) if access.tokens else None
    knows = _known(access, keys, clock, with_tenants=settings.has_tenants)
    limits = Limits(clock, access.requests_per_s, access.bytes_in_flight)
    return Security(
        Gate(knows, clock, is_open=False, idle_s=settings.stream_idle_s, limits=limits), credentials, says, keys
    )


def is_loopback(listen: str) -> bool:
    """Returns whether only this machine can reach HOST:PORT."""
    host = listen.rpartition(":")[0].strip("[]")
    if host in LOOPBACK:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _check_reach(settings: Settings, state: str) -> str:
    if is_loopback(settings.listen):
        return f"{state}: it listens on this machine only"
    if not settings.insecure:
        message = f"setting listen is {settings.listen!r}, which others can reach, and {state}; expected callers with"
        raise InvalidInput(f"{message} [tls], or insecure = true (docs/security.md)", field="listen")
    says = f"INSECURE: {state}, and others can reach {settings.listen}"
    log.warning("%s", says)
    return says


async def _keys(tokens: TokenAccess, clock: Clock) -> Keys:
    if not isinstance(tokens.keys, str):
        return await asyncio.to_thread(KeyFile, tokens.keys)
    keys = KeyUrl(tokens.keys, clock)
    await keys.start()
    return keys


def _known(access: Access, keys: Keys | None, clock: Clock, *, with_tenants: bool) -> _Known:
    tokens = Tokens(keys, access.tokens.claims, clock, with_tenants=with_tenants) if keys and access.tokens else None
    return _Known(tokens, Certificates(access.certificates, clock))


class _Anyone:
    """Nobody is asked."""

    def __init__(self, with_tenants: bool) -> None:
        self._with_tenants = with_tenants

    async def caller(self, metadata: Metadata, context: Context) -> Caller:
        """Raises InvalidInput for a tenant that is missing or too much."""
        return anyone(metadata, with_tenants=self._with_tenants)


class _Known:
    """A token, where one is sent; else the certificate. A wrong token is not made good by a right certificate."""

    def __init__(self, tokens: Tokens | None, certificates: Certificates) -> None:
        self._tokens, self._certificates = tokens, certificates

    async def caller(self, metadata: Metadata, context: Context) -> Caller:
        """Raises as Tokens and Certificates do."""
        given = values(metadata, AUTHORIZATION)
        if not given:
            return self._certificates.caller(context)
        if len(given) > 1 or self._tokens is None:
            raise NotAllowed("two tokens were given" if self._tokens else "a token was given, and none are taken")
        return await self._tokens.caller(given[0])
