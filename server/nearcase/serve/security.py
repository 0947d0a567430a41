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
from nearcase.serve.key_url import KeyUrl, check_url
from nearcase.serve.keys import KeyFile, Keys
from nearcase.serve.limits import Limits
from nearcase.serve.places import Places
from nearcase.serve.receiving import Receiving
from nearcase.serve.tokens import Tokens
from nearcase.settings import LOOPBACK

if TYPE_CHECKING:
    from nearcase.clock import Clock
    from nearcase.serve.context import Context
    from nearcase.settings import Settings

log = logging.getLogger(__name__)
AUTHORIZATION = "authorization"
INSECURE = "INSECURE"


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


@dataclass(frozen=True, slots=True)
class Plan:
    """What the settings and the callers file alone decide."""

    access: Access | None
    """Who may call; None asks nobody."""
    says: str
    """One sentence for whoever starts the server."""


def read_plan(settings: Settings) -> Plan:
    """Returns who may call; opens the callers file, and none that it names. `nearcase check --settings` asks it too.

    Raises:
        InvalidInput: The callers file is wrong, or does not go with the settings; or strangers could reach the server,
            or read what callers send, and `insecure` is not set.
    """
    if settings.callers is None:
        if settings.tenants == "caller":
            raise InvalidInput('setting tenants is "caller", expected callers with it', field="tenants")
        return Plan(None, _check_reach(settings, "no callers are set up, so nobody is asked who they are"))
    if settings.tenants == "metadata":
        message = 'setting tenants is "metadata", and callers are set up: expected "caller" or "none"'
        raise InvalidInput(message, field="tenants")
    largest = max(settings.max_message_bytes, settings.max_image_bytes)
    access = read_access(settings.callers, with_tenants=settings.has_tenants, largest_bytes=largest)
    if access.tokens and isinstance(access.tokens.keys, str):
        check_url(access.tokens.keys)
    if access.tls is None:
        return Plan(access, _check_reach(settings, "callers are asked who they are, but nothing is encrypted"))
    return Plan(access, "callers are asked who they are, and connections are encrypted")


async def open_security(settings: Settings, clock: Clock) -> Security:
    """Returns the gate and the credentials.

    Raises:
        InvalidInput: As read_plan does; or a file that the callers file names is wrong.
        Unready: The token provider does not give its keys.
    """
    plan = await asyncio.to_thread(read_plan, settings)
    access, idle_s, receiving = plan.access, settings.stream_idle_s, _receiving(settings, clock)
    if plan.says.startswith(INSECURE):
        log.warning("%s", plan.says)
    if access is None:
        anybody = _Anyone(settings.has_tenants)
        gate = Gate(anybody, clock, is_open=True, idle_s=idle_s, receiving=receiving)
        return Security(gate, None, plan.says)
    credentials = await asyncio.to_thread(Credentials, access.tls) if access.tls else None
    keys = await _keys(access.tokens, clock) if access.tokens else None
    knows = _known(access, keys, clock, with_tenants=settings.has_tenants)
    limits = Limits(clock, access.requests_per_s, access.bytes_in_flight)
    gate = Gate(knows, clock, is_open=False, idle_s=idle_s, receiving=receiving, limits=limits)
    return Security(gate, credentials, plan.says, keys)


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
    return f"{INSECURE}: {state}, and others can reach {settings.listen}"


def _receiving(settings: Settings, clock: Clock) -> Receiving:
    """As many as hold the bytes that may be in progress, if each is as large as it may be."""
    most = max(2, settings.max_bytes_in_flight // settings.max_message_bytes)
    return Receiving(Places(most, "slow uploads", clock, is_shared=settings.callers is not None))


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
