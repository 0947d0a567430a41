"""Times of writes, where the clock is set back between them and between two starts."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
from auth_files import HandClock

from nearcase.index.base import Point
from nearcase.index.opening import open_index
from nearcase.retrieve.cases import stamped
from nearcase.retrieve.stamps import Stamps


async def test_a_later_write_has_a_later_stamp_whatever_the_clock_says(tmp_path: Path) -> None:
    index = await open_index(tmp_path, dimension=4, encoder_identity="e")
    clock, given = HandClock(), [0.0]
    try:
        for jump_s in (0.0, 1.0, -7200.0, 0.0, -1.5e9, 3.0e9, -1.0):
            clock.wall_s += jump_s
            stamps = Stamps(index, clock)  # of a server that has just started
            for _ in range(3):
                given.append(await stamps.next_s())
                payload = stamped({"case_id": "c"}, given[-1])
                name = f"00000000-0000-4000-8000-{len(given):012}"
                await index.upsert([Point(name, np.full(4, 0.5, np.float32), payload)])
    finally:
        await index.close()
    kept = [round(at_s, 6) for at_s in given]
    assert all(one < other for one, other in pairwise(kept))


async def test_with_a_clock_that_goes_right_it_is_the_time(tmp_path: Path) -> None:
    index = await open_index(tmp_path, dimension=4, encoder_identity="e")
    clock = HandClock()
    try:
        stamps = Stamps(index, clock)
        assert await stamps.next_s() == clock.wall_s
        clock.wall_s += 1.0
        assert await stamps.next_s() == clock.wall_s
    finally:
        await index.close()
