"""What a server does by itself once an hour: forgets old uploads, ends erasures, and erases what is kept too long."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from nearcase.errors import InvalidInput, NearcaseError, Unready
from nearcase.index.filters import Filter, In, Range

if TYPE_CHECKING:
    from nearcase.clock import Clock
    from nearcase.serve.tenants import Tenant, Tenants
    from nearcase.serve.uploads import Uploads
    from nearcase.types import Erasure

EVERY_S = 3600.0
DAY_S = 86400.0

MOST_AT_ONCE = 0.5
"""Share of a library that is never erased without a person: that is a clock gone wrong, or a setting."""

FEW = 100
"""Of so few cases any share may go: a share says nothing of them, as they often came on one day and so end on one, and
a person is not to be asked each time. A clock that is wrong from the start on can take no more than these."""

MOST_JUMP_S = DAY_S
"""A clock that gains so much on the monotonic one while the server runs is wrong, or was; less than that erases nothing
that would not go a day later."""

PART = 20_000
"""Cases that one erasure takes on; it holds them in memory."""

log = logging.getLogger(__name__)


class Housekeeping:
    """Keeps house while the server runs.

    Args:
        tenants: Whose cases.
        uploads: The unfinished files.
        clock: The time.
        retention_days: Days that a case is kept after it was added; 0 keeps all for ever.
        on_erased: Told of each erasure that this did by itself.
    """

    def __init__(
        self,
        tenants: Tenants,
        uploads: Uploads,
        clock: Clock,
        *,
        retention_days: float,
        on_erased: Callable[[Erasure], None] = lambda _: None,
    ) -> None:
        self._tenants, self._uploads, self._clock = tenants, uploads, clock
        self._retention_days, self._on_erased = retention_days, on_erased
        self._task: asyncio.Task[None] | None = None
        self._offset_s: float | None = None  # of the clock from the monotonic one, when it was not known to be wrong

    def start(self) -> None:
        """Begins in the running event loop, with the first round at once."""
        self._task = asyncio.get_running_loop().create_task(self._keep(), name="housekeeping")

    async def stop(self) -> None:
        """Ends; an erasure that is in progress goes on, and is waited for where the tenants are closed."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def round(self) -> None:
        """Does all of it once; what fails is tried again in the next round."""
        await asyncio.to_thread(self._uploads.expire)
        for tenant in self._tenants.every():
            try:
                await tenant.erasures.finish()
                if self._retention_days:
                    await self._retain(tenant)
            except NearcaseError as error:
                log.warning("housekeeping did not end: %s (%s)", error, error.reason)

    async def _retain(self, tenant: Tenant) -> None:
        offset_s = self._clock.now_s() - self._clock.monotonic_s()
        if self._offset_s is None:
            self._offset_s = offset_s
        if (days := (offset_s - self._offset_s) / DAY_S) > MOST_JUMP_S / DAY_S:
            message = (
                f"the clock went ahead by {days:.0f} days since the start; set it right, or start the server again"
            )
            raise Unready(message, reason="CLOCK")
        try:
            for done in await erase_older(tenant, self._clock, self._retention_days, most=MOST_AT_ONCE):
                self._on_erased(done)
        except Unready as error:
            if error.reason == "CLOCK":  # it is behind: setting it right is no jump
                self._offset_s = None
            raise

    async def _keep(self) -> None:
        while True:
            await self.round()
            await asyncio.sleep(EVERY_S)


async def erase_older(tenant: Tenant, clock: Clock, days: float, *, most: float = 1.0) -> list[Erasure]:
    """Erases the cases that were added longer ago, and returns the certificates.

    Args:
        tenant: Whose cases.
        clock: What "ago" is told by; not where it is behind the newest case or erasure, since it is wrong then.
        days: How long ago; more than 0.
        most: Largest share of the library that may go.

    Raises:
        InvalidInput: The days are no such number.
        Unready: With reason CLOCK: the clock can not be right. With reason RETENTION: more than that share would go.
    """
    if not 0 < days < 1e5:
        raise InvalidInput(f"expected more than 0 and less than 100000 days, got {days:g}", field="older_than_days")
    now_s = clock.now_s()
    await _check_clock(tenant, now_s)
    older = Range("added_at_s", below=now_s - days * DAY_S)
    count, total = await tenant.library.count(older), await tenant.library.count()
    if count > FEW and count > most * total:
        message = f"{count} of {total} cases are older than {days:g} days; erase them with nearcase library erase"
        raise Unready(message, reason="RETENTION")
    done: list[Erasure] = []
    while erasure := await _erase_part(tenant, older):
        done.append(erasure)
    return done


async def _erase_part(tenant: Tenant, older: Filter) -> Erasure | None:
    page = await tenant.library.matching(older, lambda _: True, limit=PART)
    return await tenant.erasures.erase(In("case_id", tuple(page)), "retention") if page else None


async def _check_clock(tenant: Tenant, now_s: float) -> None:
    if tenant.erasures.last_at_s > now_s or await tenant.library.count(Range("added_at_s", above=now_s)):
        raise Unready("the clock is behind what the library has seen; nothing is erased by it", reason="CLOCK")
