"""The canary: a small file that goes the whole way, decoding, encoding and searching, again and again.

A server whose queue thread or decoding children are dead looks alive to everything that does not send it an image.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from importlib.resources import files
from typing import TYPE_CHECKING

import numpy as np

from nearcase.encode.volume import VolumeRecipe
from nearcase.errors import NearcaseError, Overloaded
from nearcase.intake.burned_in import KEEP_TEXT
from nearcase.prepare import SERIES_TIMES

if TYPE_CHECKING:
    from nearcase.serve.engine import Engine
    from nearcase.types import Embedding

EVERY_S = 2.0
"""So that health tells within 5 s what broke."""

SHARE = 0.1
"""Most of the time that it may take of an idle encoder: a large one on a CPU takes seconds for an image."""

FRESH_S = 30.0
"""While images of others come through it flies no oftener: they tell the same."""

LIMIT_S, TIMES = 2.0, 5.0
"""A stage that takes longer than this, and so many times longer than it did, has hung; unless others get through it."""

FIRST_LIMIT_S = 60.0
"""For the first journey, when nothing is warm."""

STUCK_S = 120.0
"""An encoder that has hung for so long comes back only with a new process."""

SAME = 0.9999
"""Least cosine of its embedding with that of its first journey: the law of `encode.base.Encoder`."""

ENCODER, INDEX = "encoder", "index"
HANGS = "it hangs"
log = logging.getLogger(__name__)


class Canary:
    """Sends the file on its way and remembers what it found broken; `broken` is empty while all is well.

    Args:
        engine: The parts that it passes.
    """

    def __init__(self, engine: Engine) -> None:
        is_volume = isinstance(engine.card.recipe, VolumeRecipe)
        name = "canary.nii.gz" if is_volume else "canary.dcm"
        self._data = files("nearcase.serve").joinpath(name).read_bytes()
        self._engine = engine
        self._decode_limit_s = engine.settings.decode_wall_s * (SERIES_TIMES if is_volume else 1)
        self._first: Embedding | None = None
        self._flown_at_s, self._passed = 0.0, -1
        self._hung_since_s: float | None = None
        self.broken = ""  # ENCODER (decoding included) or INDEX
        self.took_s = 0.0

    @property
    def is_stuck(self) -> bool:
        """Whether the encoder has hung for so long that only a restart helps."""
        since_s = self._hung_since_s
        return since_s is not None and self._engine.clock.monotonic_s() - since_s > STUCK_S

    async def watch(self, tell: Callable[[], Awaitable[None]]) -> None:
        """Goes on until it is cancelled, and tells whenever something broke or came back."""
        while True:
            await asyncio.sleep(max(EVERY_S, self.took_s / SHARE))
            was = self.broken
            if self._is_due():
                await self.fly()
            if was != self.broken:
                await tell()

    def _is_due(self) -> bool:
        """Not while others prove the same."""
        is_fresh = self._engine.clock.monotonic_s() - self._flown_at_s < FRESH_S
        return bool(self.broken) or not is_fresh or self._engine.batcher.counts.embedded == self._passed

    async def fly(self) -> None:
        """Makes one journey and sets `broken`; a full queue says nothing of health, nor does one that moves."""
        start_s = self._engine.clock.monotonic_s()
        try:
            complaint = await self._journey()
            if complaint and complaint[0] == ENCODER and complaint[1] != HANGS:
                complaint = await self._journey()  # a child that was killed a moment ago is a new one now
        except Overloaded:
            return
        now_s = self._engine.clock.monotonic_s()
        self._flown_at_s, self._passed = now_s, self._engine.batcher.counts.embedded
        self._note(complaint, now_s)
        if not complaint:
            self.took_s = now_s - start_s

    def _note(self, complaint: tuple[str, str] | None, now_s: float) -> None:
        part, how = complaint or ("", "")
        self._hung_since_s = (self._hung_since_s or now_s) if how == HANGS else None
        if part and part != self.broken:
            log.error("the canary did not come back from the %s: %s", part, how)
        elif self.broken and not part:
            log.warning("the canary is back")
        self.broken = part

    async def _journey(self) -> tuple[str, str] | None:
        """Returns the part that is broken, and how; raises Overloaded where it can not be told."""
        try:
            vector = await self._embed()
        except Overloaded:
            raise
        except NearcaseError as error:
            return ENCODER, error.reason
        except TimeoutError:
            return ENCODER, HANGS
        if self._first is None:
            self._first = vector
        if not float(np.dot(self._first, vector)) >= SAME:  # true for NaN
            return ENCODER, "its embedding changed"
        try:
            async with asyncio.timeout(self._limit_s()):
                await self._engine.tenants.index.search(vector, limit=1)
        except NearcaseError as error:
            return INDEX, error.reason
        except TimeoutError:
            return INDEX, "no answer"
        return None

    async def _embed(self) -> Embedding:
        preparer, batcher = self._engine.preparer, self._engine.batcher
        limit_s = self._limit_s()
        with _unless_moved(lambda: preparer.ended_count):
            async with asyncio.timeout(self._decode_limit_s + limit_s):  # a child that hangs meets its own limit first
                prepared = await preparer.prepare(self._data, None, KEEP_TEXT)
        with _unless_moved(lambda: batcher.counts.embedded + batcher.counts.failed):
            async with asyncio.timeout(limit_s):  # with a deadline it goes before those who have none
                until_s = self._engine.clock.monotonic_s() + limit_s
                return (await batcher.embed(prepared.pixels, deadline_s=until_s)).embedding

    def _limit_s(self) -> float:
        return FIRST_LIMIT_S if self._first is None else max(LIMIT_S, TIMES * self.took_s)


@contextmanager
def _unless_moved(done: Callable[[], int]) -> Iterator[None]:
    """A wait that was too long is an overload where others got through meanwhile."""
    before = done()
    try:
        yield
    except TimeoutError:
        if done() != before:
            raise Overloaded("others go first") from None
        raise
