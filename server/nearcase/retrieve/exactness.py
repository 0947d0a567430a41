"""Whether an index scores every candidate, asked as seldom as that can change."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nearcase.index.base import Index


class Exactness:
    """Of one index. Where other servers write too, asking takes a count of all cases over the network."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._known: tuple[str, bool] | None = None  # by the state's name, where others write too

    async def at(self, snapshot: str) -> bool:
        """Returns whether every search is exact in the state of this name; "" is a state without one."""
        if self._known is not None and self._known[0] == snapshot:
            return self._known[1]
        state = await self._index.state()
        self._known = (snapshot, state.is_exact) if state.is_shared and snapshot else None
        return state.is_exact
