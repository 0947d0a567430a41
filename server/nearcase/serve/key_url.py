"""The keys of a token provider: fetched, kept while the provider is down, and fetched anew when it changes them."""

from __future__ import annotations

import asyncio
import http.client
import logging
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from nearcase.errors import InvalidInput, NearcaseError, Unready
from nearcase.serve.keys import MAX_BYTES, Key, matching, read_keys
from nearcase.settings import LOOPBACK

if TYPE_CHECKING:
    from nearcase.clock import Clock

log = logging.getLogger(__name__)

REFRESH_S = 300.0
"""Keys that are older are fetched again, while the old ones go on: so long is a withdrawn key still taken."""

PAUSE_S = 10.0
"""Least time between two fetches: tokens with made-up key names must not become a load on the provider."""

KEEP_S = 24 * 3600.0
"""How long keys are used while the provider does not answer; after that nobody can be told from a stranger."""

TIMEOUT_S = 5.0


class KeyUrl:
    """The keys at an https address (RFC 7517), or at http on this machine.

    All times are of the monotonic clock: one that jumps changes nothing here.

    Raises:
        InvalidInput: The address is of another kind.
    """

    def __init__(self, url: str, clock: Clock) -> None:
        check_url(url)
        self._url, self._clock = url, clock
        self._keys: tuple[Key, ...] = ()
        self._fetched_s = self._tried_s = float("-inf")
        self._fetching: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Fetches the keys a first time.

        Raises:
            Unready: With reason KEYS_UNREACHABLE: they can not be had.
        """
        await self._fetch()
        if not self._keys:
            raise self._unreachable()

    async def named(self, name: str) -> tuple[Key, ...]:
        """Waits for the provider only where no key is known by this name, and not more often than PAUSE_S allows."""
        found = matching(self._keys, name)
        if not found or self._age_s() > KEEP_S:
            await self._fetch()
        elif self._age_s() > REFRESH_S:
            self._begin()
        if self._age_s() > KEEP_S:
            raise self._unreachable()
        return matching(self._keys, name)

    async def close(self) -> None:
        """Waits for no fetch any more."""
        if self._fetching:
            self._fetching.cancel()
            await asyncio.gather(self._fetching, return_exceptions=True)

    def _age_s(self) -> float:
        return self._clock.monotonic_s() - self._fetched_s

    async def _fetch(self) -> None:
        """All who wait share one fetch; a caller that goes away does not end it."""
        self._begin()
        if self._fetching:
            await asyncio.shield(self._fetching)

    def _begin(self) -> None:
        is_idle = self._fetching is None or self._fetching.done()
        if is_idle and self._clock.monotonic_s() - self._tried_s >= PAUSE_S:
            self._tried_s = self._clock.monotonic_s()
            self._fetching = asyncio.get_running_loop().create_task(self._fetch_now(), name="token-keys")

    async def _fetch_now(self) -> None:
        try:
            async with asyncio.timeout(2 * TIMEOUT_S):  # an answer may come drop by drop
                self._keys = read_keys(await asyncio.to_thread(download, self._url))
        except (NearcaseError, TimeoutError) as error:
            log.warning("the token provider gave no keys, those from before stay: %s", error)
            return
        self._fetched_s = self._clock.monotonic_s()

    def _unreachable(self) -> Unready:
        message = "the keys of the token provider can not be had, so no token can be checked"
        return Unready(message, reason="KEYS_UNREACHABLE")


def check_url(url: str) -> None:
    """Raises InvalidInput for an address whose answer somebody on the way could change, or that holds a password."""
    try:
        parts = urlsplit(url)
        is_safe = parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK)
        is_sound = bool(parts.hostname) and parts.username is None and parts.port != 0
    except ValueError:
        is_safe = is_sound = False
    if not (is_safe and is_sound):
        raise InvalidInput("expected keys to be a file or an https address without a password", field="keys")


def download(url: str) -> str:
    """Returns what stands at an address, verified by the system's certificates (or those of SSL_CERT_FILE).

    Raises:
        Unready: It can not be had; the message has the kind of the fault alone.
    """
    try:
        with _OPENER.open(url, timeout=TIMEOUT_S) as answer:  # the scheme was checked at the start
            return str(answer.read(MAX_BYTES).decode())
    except (OSError, http.client.HTTPException, ValueError) as error:
        cause = error.reason if isinstance(error, urllib.error.URLError) else error
        kind = f"HTTP {error.code}" if isinstance(error, urllib.error.HTTPError) else type(cause).__name__
        raise Unready(f"no answer with keys ({kind})", reason="KEYS_UNREACHABLE") from None


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """An address that leads elsewhere is not the one that was configured."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        """Never."""
        return None


_OPENER = urllib.request.build_opener(_NoRedirect)
