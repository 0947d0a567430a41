"""Counts that were asked for before, kept until something is written.

Every search tells how many cases were in its scope, and a decision counts its reference set: mostly the same questions
over a library that did not change, each a trip to the index process and a walk through an engine.
"""

from __future__ import annotations

from typing import Any

MAX_KEPT = 256
"""Questions; a search that leaves out its own patient asks one of its own, and the oldest goes for it."""

MAX_VALUES = 64
"""Values of a facet that is kept: one by patient has as many as there are patients."""

_COUNTING = frozenset({"count", "facet"})


class Counts:
    """Answers of one library; changed by the thread that asks its process alone, so that no write is under way."""

    def __init__(self) -> None:
        self._kept: dict[tuple[object, ...], Any] = {}

    def known(self, operation: str, arguments: tuple[object, ...]) -> Any:
        """Returns the answer, or None where it has to be asked for."""
        return self._kept.get((operation, *arguments)) if operation in _COUNTING else None

    def keep(self, operation: str, arguments: tuple[object, ...], answer: Any) -> None:
        """Keeps the answer to a question that counts."""
        if operation not in _COUNTING or (operation == "facet" and len(answer) > MAX_VALUES):
            return
        self._kept[(operation, *arguments)] = answer
        if len(self._kept) > MAX_KEPT:
            del self._kept[next(iter(self._kept))]

    def forget(self) -> None:
        """Before anything is written, whatever becomes of it, and when the process is another."""
        self._kept.clear()
