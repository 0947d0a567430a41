"""Retention erases what is old, never by a clock that can not be right, and never half a library by itself."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from test_library import case, vector

from nearcase.errors import InvalidInput, Unready
from nearcase.index.exact import ExactIndex
from nearcase.retrieve.erasures import Journal
from nearcase.serve.housekeeping import DAY_S, FEW, Housekeeping, erase_older
from nearcase.serve.tenants import Tenant, Tenants
from nearcase.serve.uploads import HOUR_S, Uploads
from nearcase.settings import Settings
from nearcase.transfers import StoredCase


class HandClock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.at_s = 1e9
        self.wrong_s = 0.0

    def now_s(self) -> float:
        return self.at_s + self.wrong_s

    def monotonic_s(self) -> float:
        return self.at_s


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[tuple[Tenants, Tenant, HandClock]]:
    clock = HandClock()
    journal = Journal.open(folder / "ledger.jsonl", folder / "mark")
    tenants = Tenants(ExactIndex(4), journal, {}, Settings(data=folder), clock)
    await tenants.start()
    yield tenants, tenants.of(""), clock
    await tenants.close()


async def fill(tenant: Tenant, numbers: range, at_s: float) -> None:
    for number in numbers:
        await tenant.library.put([StoredCase(replace(case(number), added_at_s=at_s), vector(number))], lambda _: False)


async def test_the_old_go_and_the_young_stay(tmp_path: Path) -> None:
    async with opened(tmp_path) as (_, tenant, clock):
        await fill(tenant, range(4), clock.at_s - 11 * DAY_S)
        await fill(tenant, range(4, 9), clock.at_s - 9 * DAY_S)
        (done,) = await erase_older(tenant, clock, 10.0)
        assert (done.target, done.case_count, done.found_again_count) == ("retention", 4, 0)
        assert await tenant.library.count() == 5
        assert await erase_older(tenant, clock, 10.0) == []


async def test_a_clock_that_is_behind_erases_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path) as (_, tenant, clock):
        await fill(tenant, range(3), clock.at_s - 100 * DAY_S)
        await fill(tenant, range(3, 4), clock.at_s)
        clock.at_s -= 1
        with pytest.raises(Unready, match="clock") as caught:
            await erase_older(tenant, clock, 10.0)
        assert caught.value.reason == "CLOCK"
        clock.at_s += 2
        assert len(await erase_older(tenant, clock, 10.0)) == 1
        clock.at_s -= 1.5  # behind the erasure now
        with pytest.raises(Unready, match="clock"):
            await erase_older(tenant, clock, 10.0)


@pytest.mark.parametrize("days", [0.0, -1.0, float("nan"), float("inf"), 1e6])
async def test_days_that_are_none(tmp_path: Path, days: float) -> None:
    async with opened(tmp_path) as (_, tenant, clock):
        with pytest.raises(InvalidInput):
            await erase_older(tenant, clock, days)


async def test_a_server_erases_no_half_of_a_library_by_itself(tmp_path: Path) -> None:
    async with opened(tmp_path) as (tenants, tenant, clock):
        await fill(tenant, range(FEW + 50), clock.at_s)
        uploads = Uploads(tmp_path / "uploads", max_bytes=100)
        keeping = Housekeeping(tenants, uploads, clock, retention_days=10.0)
        clock.at_s += 3650 * DAY_S  # a wrong clock, or a server that was off for ten years
        await keeping.round()
        assert await tenant.library.count() == FEW + 50
        assert len(await erase_older(tenant, clock, 10.0)) == 1  # on a person's word
        await fill(tenant, range(FEW), clock.at_s - 11 * DAY_S)
        await keeping.round()
        assert await tenant.library.count() == 0


async def test_a_clock_that_jumps_ahead_empties_no_small_library(tmp_path: Path) -> None:
    async with opened(tmp_path) as (tenants, tenant, clock):
        await fill(tenant, range(FEW), clock.at_s)
        keeping = Housekeeping(tenants, Uploads(tmp_path / "uploads", max_bytes=100), clock, retention_days=10.0)
        for wrong_s in (0.0, 3650 * DAY_S, 11 * DAY_S, -3650 * DAY_S, 0.0):  # behind, and right again
            clock.wrong_s = wrong_s
            await keeping.round()
            assert await tenant.library.count() == FEW
        clock.wrong_s = 11 * DAY_S
        await keeping.round()
        assert await tenant.library.count() == FEW
        clock.wrong_s = 0.0
        clock.at_s += 10.5 * DAY_S
        await keeping.round()
        assert await tenant.library.count() == 0  # time did pass, and so few may all go


async def test_the_first_round_comes_with_the_start_and_drops_old_uploads(tmp_path: Path) -> None:
    async with opened(tmp_path) as (tenants, tenant, clock):
        await fill(tenant, range(3), clock.at_s - 11 * DAY_S)
        uploads = Uploads(tmp_path / "uploads", max_bytes=100, keep_hours=2.0)
        parts = [tmp_path / "uploads" / f"{name}-9.part" for name in ("old", "new")]
        for part, hours in zip(parts, (3, 1), strict=True):
            part.write_bytes(b"half")
            os.utime(part, (0, part.stat().st_mtime - hours * HOUR_S))
        keeping = Housekeeping(tenants, uploads, clock, retention_days=10.0)
        keeping.start()
        async with asyncio.timeout(10):
            while await tenant.library.count():
                await asyncio.sleep(0.01)
        await keeping.stop()
        assert [part.exists() for part in parts] == [False, True]
