"""Open-loop load: arrivals keep their times whether or not the server keeps up (Poisson, seeded)."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

Send = Callable[[bytes], Awaitable[bool]]
"""Sends a file and returns whether an embedding came back."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One request."""

    latency_s: float
    is_good: bool


async def open_loop(send: Send, files: Sequence[bytes], *, rate: float, seconds: float, seed: int) -> list[Outcome]:
    """Returns what became of every request, none left out."""
    rng = random.Random(seed)  # noqa: S311  arrivals, not secrets
    start_s, at_s = time.monotonic(), 0.0
    tasks: list[asyncio.Task[Outcome]] = []
    while at_s < seconds:
        await asyncio.sleep(max(0.0, start_s + at_s - time.monotonic()))
        tasks.append(asyncio.create_task(_one(send, files[len(tasks) % len(files)], start_s + at_s)))
        at_s += rng.expovariate(rate)
    return list(await asyncio.gather(*tasks))


async def _one(send: Send, data: bytes, due_s: float) -> Outcome:
    """Latency counts from when the request was due: a late client would flatter the server."""
    try:
        good = await asyncio.wait_for(send(data), 30)
    except Exception:
        good = False
    return Outcome(time.monotonic() - due_s, good)
