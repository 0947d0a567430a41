"""Sends load in a process of its own: `python -m traffic.generator ADDRESS`, one phase for each line on stdin.

Arrivals keep their times whether or not the server keeps up (Poisson, seeded), and what a request took counts from when
it was due: a late generator would flatter the server. Only to this machine, and never more than so many in flight.
"""

from __future__ import annotations

import asyncio
import gc
import json
import random
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import asdict, dataclass, field
from itertools import cycle
from typing import Any

import grpc

from nearcase.v1 import library_pb2, library_pb2_grpc
from traffic.mix import BAD, SOUND, item, mix

SEARCH = "/nearcase.v1.SearchService/Search"
TIMEOUT_S = 30.0
CHANNELS = 4
MOST_IN_FLIGHT, MOST_REQUESTS = 4000, 2_000_000
ADDED = "ADDED"


@dataclass(frozen=True, slots=True)
class Phase:
    """What to send, as one line of JSON."""

    name: str
    seconds: float
    searches_per_s: float = 0.0  # sound ones; 0 with `at_once` is a closed loop
    bad_per_s: float = 0.0
    adds_per_s: float = 0.0
    at_once: int = 0  # of a closed loop: each of so many callers asks again once it is answered
    seed: int = 0


@dataclass(slots=True)
class Outcomes:
    """Columns of what became of every request, none left out."""

    kind: list[str] = field(default_factory=list)
    due_s: list[float] = field(default_factory=list)  # from the phase's begin
    took_s: list[float] = field(default_factory=list)
    late_s: list[float] = field(default_factory=list)  # how late it was sent
    code: list[str] = field(default_factory=list)
    reason: list[str] = field(default_factory=list)

    def add(self, kind: str, due_s: float, took_s: float, late_s: float, code: str, reason: str) -> None:
        """Adds one."""
        self.kind.append(kind)
        self.due_s.append(due_s)
        self.took_s.append(took_s)
        self.late_s.append(late_s)
        self.code.append(code)
        self.reason.append(reason)


class Generator:
    """One server's caller."""

    def __init__(self, address: str) -> None:
        if address.rpartition(":")[0] != "127.0.0.1":
            raise SystemExit("expected a server on 127.0.0.1: this is no tool against others")
        # Channels with the same options share a connection, and one connection is one thread of grpc's.
        own = [("grpc.use_local_subchannel_pool", 1)]
        self._channels = [grpc.aio.insecure_channel(address, options=own) for _ in range(CHANNELS)]
        self._calls: Iterator[Any] = cycle(
            [  # of bytes: messages are made once
                channel.unary_unary(SEARCH) for channel in self._channels
            ]
        )
        self._adding = library_pb2_grpc.LibraryServiceStub(grpc.aio.insecure_channel(address, options=own))
        self._mix = mix()
        self._sent, self._in_flight, self._added = 0, 0, 0

    async def run(self, phase: Phase) -> Outcomes:
        """Returns once the last request of the phase has ended."""
        outcomes, start_s = Outcomes(), time.monotonic()
        work = [self._add(phase, start_s, outcomes)] if phase.adds_per_s else []
        if phase.at_once:
            work += [self._closed(phase, start_s, number, outcomes) for number in range(phase.at_once)]
        else:
            work += [
                self._open(phase, SOUND, phase.searches_per_s, self._mix.sound, start_s, outcomes),
                self._open(phase, BAD, phase.bad_per_s, self._mix.bad, start_s, outcomes),
            ]
        await asyncio.gather(*work)
        return outcomes

    async def _closed(self, phase: Phase, start_s: float, number: int, outcomes: Outcomes) -> None:
        requests = cycle(self._mix.sound)
        for _ in range(number):
            next(requests)
        while (now_s := time.monotonic()) < start_s + phase.seconds:
            await self._one(SOUND, next(requests), start_s, now_s, outcomes)

    async def _open(
        self, phase: Phase, kind: str, per_s: float, requests: list[bytes], start_s: float, outcomes: Outcomes
    ) -> None:
        async with asyncio.TaskGroup() as group:
            for number, due_s in enumerate(_arrivals(per_s, phase.seconds, f"{phase.seed} {kind}")):
                ahead_s = start_s + due_s - time.monotonic()
                if ahead_s > 0:
                    await asyncio.sleep(ahead_s)
                elif number % 16 == 0:
                    await asyncio.sleep(0)  # late: catch up, and let answers in between
                group.create_task(self._one(kind, requests[number % len(requests)], start_s, start_s + due_s, outcomes))

    async def _one(self, kind: str, request: bytes, start_s: float, due_s: float, outcomes: Outcomes) -> None:
        late_s = time.monotonic() - due_s
        self._sent += 1
        if self._sent > MOST_REQUESTS or self._in_flight >= MOST_IN_FLIGHT:
            raise SystemExit("more requests than this is meant for")
        self._in_flight += 1
        try:
            await next(self._calls)(request, timeout=TIMEOUT_S)
            code, reason = "OK", ""
        except grpc.aio.AioRpcError as error:
            code, reason = error.code().name, _reason(error)
        finally:
            self._in_flight -= 1
        outcomes.add(kind, due_s - start_s, time.monotonic() - due_s, late_s, code, reason)

    async def _add(self, phase: Phase, start_s: float, outcomes: Outcomes) -> None:
        """One stream of pictures, as a gateway sends them; it is held back where the server takes its time."""
        due: dict[str, float] = {}

        async def items() -> AsyncIterator[library_pb2.AddImagesRequest]:
            for due_s in _arrivals(phase.adds_per_s, phase.seconds, f"{phase.seed} add"):
                await asyncio.sleep(max(0.0, start_s + due_s - time.monotonic()))
                request = item(self._added)
                self._added += 1
                due[request.start.request_id] = due_s
                yield request

        try:
            async for result in self._adding.AddImages(items()):
                due_s = due.pop(result.request_id)
                code = ADDED if result.WhichOneof("result") == "added" else f"item error {result.error.code}"
                took_s = time.monotonic() - start_s - due_s
                outcomes.add("add", due_s, took_s, 0.0, code, result.error.reason)
        except grpc.aio.AioRpcError as error:
            outcomes.add("add", 0.0, 0.0, 0.0, error.code().name, _reason(error))
        for request_id, due_s in due.items():
            outcomes.add("add", due_s, 0.0, 0.0, "UNANSWERED", request_id)


def _arrivals(per_s: float, seconds: float, seed: str) -> Iterator[float]:
    rng, at_s = random.Random(seed), 0.0  # noqa: S311  arrivals, not secrets
    while per_s:
        at_s += rng.expovariate(per_s)
        if at_s > seconds:
            return
        yield at_s


def _reason(error: grpc.aio.AioRpcError) -> str:
    return str(dict(error.trailing_metadata() or ()).get("nearcase-reason", ""))


async def main() -> None:
    """Answers each phase with a line that holds its outcomes."""
    generator = Generator(sys.argv[1])
    loop = asyncio.get_running_loop()
    gc.freeze()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        used_s, start_s = time.process_time(), time.monotonic()
        outcomes = await generator.run(Phase(**json.loads(line)))
        share = (time.process_time() - used_s) / (time.monotonic() - start_s)
        print(json.dumps(asdict(outcomes) | {"cpu_share": share}), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
