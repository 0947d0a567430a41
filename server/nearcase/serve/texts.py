"""The text tower for many callers: one text at a time, bounded, so that words never take the cores from images."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from nearcase.errors import Overloaded, Unsupported

if TYPE_CHECKING:
    from nearcase.clock import Clock
    from nearcase.encode.base import TextEncoder
    from nearcase.types import Embedding


class Texts:
    """Embeds words where the encoder has a text tower.

    Args:
        encoder: The text tower; None where the encoder has none.
        name: Of the encoder, for people.
        clock: For deadlines.
        max_waiting: Texts that may wait; one more raises Overloaded.
    """

    def __init__(self, encoder: TextEncoder | None, name: str, clock: Clock, *, max_waiting: int) -> None:
        self._encoder, self._name, self._clock, self._max_waiting = encoder, name, clock, max_waiting
        self._lane = asyncio.Semaphore(1)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="text")
        self._waiting = 0

    @property
    def are_served(self) -> bool:
        """True where the encoder has a text tower."""
        return self._encoder is not None

    @property
    def waiting(self) -> int:
        """Texts in the queue and in the encoder."""
        return self._waiting

    async def embed(self, text: str, *, deadline_s: float | None) -> Embedding:
        """Returns the unit embedding of a text.

        Raises:
            Unsupported: The encoder has no text tower.
            InvalidInput: The text is longer than 20,000 characters.
            Overloaded: Too many texts wait.
            TimeoutError: The deadline passed while the text waited.
        """
        if self._encoder is None:
            message = f"UNIMPLEMENTED: the encoder {self._name} has no text tower: it takes images only"
            raise Unsupported(message, reason="UNIMPLEMENTED", field="text")
        if self._waiting >= self._max_waiting:
            raise Overloaded(f"{self._max_waiting} texts wait for the encoder already; try again later")
        self._waiting += 1
        try:
            async with self._lane:
                if deadline_s is not None and deadline_s <= self._clock.monotonic_s():
                    raise TimeoutError("the deadline passed in the queue of texts")
                loop = asyncio.get_running_loop()
                vectors = await loop.run_in_executor(self._thread, self._encoder.embed_texts, [text])
                embedding: Embedding = vectors[0]
                return embedding
        finally:
            self._waiting -= 1

    def close(self) -> None:
        """Ends the thread."""
        self._thread.shutdown(cancel_futures=True)
