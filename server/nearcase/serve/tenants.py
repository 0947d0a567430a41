"""What each tenant has of its own: cases, findings, decision records and erasures. Nothing of it is shared."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nearcase.clock import SystemClock
from nearcase.errors import NearcaseError, Overloaded, Unready
from nearcase.index.filters import In, Not
from nearcase.index.tenant import FIELD, TenantIndex
from nearcase.retrieve.erasures import Erasures, Journal
from nearcase.retrieve.library import Library
from nearcase.serve.caller import current
from nearcase.serve.findings import Declared, Findings
from nearcase.serve.records import Records

if TYPE_CHECKING:
    from nearcase.clock import Clock
    from nearcase.index.base import Index
    from nearcase.retrieve.ledger import Intent
    from nearcase.settings import Settings

MAX_TENANTS = 10_000
"""A gateway that makes up names must not fill the memory."""

MANY = 1_000_000
ATTEMPTS = 3

_NOBODY = "?"
"""The tenant of what asks outside of any request, on a server of tenants: no name of a tenant has this sign."""


log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Tenant:
    """The parts of one tenant."""

    index: Index
    library: Library
    findings: Findings
    records: Records
    erasures: Erasures


class Tenants:
    """Makes each tenant's parts when they are first asked for.

    Args:
        index: That of all tenants.
        journal: The erasures of all tenants.
        declared: The findings, which are the same for all.
        settings: Where records are; a tenant's are in a folder of its name. Whether there are many tenants; one alone
            has no name and the whole index.
        clock: The time.
    """

    def __init__(
        self, index: Index, journal: Journal, declared: Declared, settings: Settings, clock: Clock | None = None
    ) -> None:
        self.index, self.journal, self.many = index, journal, settings.has_tenants
        self._declared, self._records, self._clock = declared, settings.records_folder, clock or SystemClock()
        self._made: dict[str, Tenant] = {}

    def here(self) -> Tenant:
        """Returns the parts of the tenant who asks in this request."""
        return self.of(current().tenant)

    def of(self, name: str) -> Tenant:
        """Returns the parts of a tenant.

        Raises:
            Overloaded: There are too many tenants.
        """
        if name not in self._made:
            if len(self._made) >= MAX_TENANTS:
                raise Overloaded(f"there are {MAX_TENANTS} tenants here, and no place for another")
            self._made[name] = self._make(name)
        return self._made[name]

    def every(self) -> list[Tenant]:
        """Returns all tenants who asked for something since the start."""
        return list(self._made.values())

    async def start(self) -> None:
        """Checks that the library is of this kind, and makes good what a crash or an older copy left.

        Raises:
            Unready: With reason TENANTS_MISMATCH: the library has cases of tenants and the server is for one, or the
                reverse. The index can not be read.
        """
        names = await self._names()
        unfinished = _by_tenant(self.journal.ledger.unfinished())
        unseen = _by_tenant(self.journal.unseen())
        for name in sorted(names | unfinished.keys()):
            erasures = self.of(name).erasures
            try:
                await erasures.finish(unfinished[name])
            except NearcaseError as error:  # nobody was told that it was done; it is tried again every hour
                log.warning("an erasure that was cut short could not be ended: %s (%s)", error, error.reason)
            if unseen[name]:  # somebody was told, so nothing may be shown before that is true again
                await erasures.replay()
        if unseen:
            await self.journal.seen()

    async def _names(self) -> set[str]:
        named = await self.index.facet(FIELD, limit=MANY)
        if not self.many:
            if named:
                message = "this library has cases of tenants, expected tenants = metadata"
                raise Unready(message, reason="TENANTS_MISMATCH")
            return {""}
        for _ in range(ATTEMPTS):  # another server on the same collection may add a new tenant's first case meanwhile
            if not await self.index.count(Not(In(FIELD, tuple(named))) if named else None):
                return set(named)
            named = await self.index.facet(FIELD, limit=MANY)
        message = "this library has cases that are no tenant's, expected tenants = none"
        raise Unready(message, reason="TENANTS_MISMATCH")

    async def close(self) -> None:
        """Lets erasures end, commits what waits, then closes the index."""
        for tenant in self.every():
            await tenant.erasures.settled()
        await asyncio.gather(*(tenant.library.close() for tenant in self.every()))
        await self.index.close()

    def _make(self, name: str) -> Tenant:
        folder = self._records / "tenants" / name if name else self._records
        index = TenantIndex(self.index, name or _NOBODY) if self.many else self.index
        library = Library(index, self._clock)
        library.start()
        records = Records(folder)
        erasures = Erasures(self.journal, name, library, records.blot, self._clock)
        return Tenant(index, library, Findings(self._declared, library), records, erasures)


def _by_tenant(intents: list[Intent]) -> defaultdict[str, list[Intent]]:
    found: defaultdict[str, list[Intent]] = defaultdict(list)
    for intent in intents:
        found[intent.tenant].append(intent)
    return found
