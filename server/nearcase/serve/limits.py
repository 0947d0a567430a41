"""What one caller may ask of the server, so that one that runs wild keeps no other out."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from nearcase.errors import Overloaded

if TYPE_CHECKING:
    from nearcase.clock import Clock
    from nearcase.serve.caller import Caller

BURST_S = 2.0
"""A caller that was quiet may send the requests of so many seconds at once."""

MAX_REMEMBERED = 10_000
"""Callers that are remembered; those who hold nothing and were quiet longest are forgotten first."""


@dataclass(slots=True)
class _Account:
    """What one caller has: requests that it may send now, and bytes of its requests in the server."""

    tokens: float
    seen_s: float
    held_bytes: int = 0


class Limits:
    """A token bucket of requests, and a sum of bytes, for each caller.

    Args:
        clock: Its monotonic time; one that jumps fills no bucket.
        requests_per_s: Requests a second over a while; twice as many may come at once.
        bytes_in_flight: Bytes of requests that are being received or worked on.
    """

    def __init__(self, clock: Clock, requests_per_s: float, bytes_in_flight: int) -> None:
        self._clock, self._rate, self._bytes = clock, requests_per_s, bytes_in_flight
        self._accounts: OrderedDict[tuple[str, str], _Account] = OrderedDict()

    def enter(self, caller: Caller) -> None:
        """Takes one request from the caller's bucket.

        Raises:
            Overloaded: It is empty.
        """
        account, now_s = self._account(caller), self._clock.monotonic_s()
        most = max(1.0, BURST_S * self._rate)
        account.tokens = min(most, account.tokens + (now_s - account.seen_s) * self._rate)
        account.seen_s = now_s
        if account.tokens < 1:
            message = f"this caller may send {self._rate:g} requests a second; try again later"
            raise Overloaded(message, reason="CALLER_RATE")
        account.tokens -= 1

    def hold(self, caller: Caller, size: int) -> None:
        """Counts bytes that came in; `drop` must follow.

        Raises:
            Overloaded: The caller has too many in the server; these are not counted.
        """
        account = self._account(caller)
        if account.held_bytes + size > self._bytes:
            message = f"this caller may have requests of {self._bytes} bytes in progress; try again later"
            raise Overloaded(message, reason="CALLER_BYTES")
        account.held_bytes += size

    def drop(self, caller: Caller, size: int) -> None:
        """Counts bytes no longer."""
        self._account(caller).held_bytes -= size

    def _account(self, caller: Caller) -> _Account:
        key = (caller.tenant, caller.name)
        account = self._accounts.get(key)
        if account is None:
            account = _Account(max(1.0, BURST_S * self._rate), self._clock.monotonic_s())
            self._accounts[key] = account
            self._forget()
        self._accounts.move_to_end(key)
        return account

    def _forget(self) -> None:
        """Only those who hold nothing; only signed names get here, so that strangers push nobody out."""
        for key in list(islice(self._accounts, max(0, len(self._accounts) - MAX_REMEMBERED))):
            if not self._accounts[key].held_bytes:
                del self._accounts[key]
