"""An index says whether it is exact; where others write too it is asked once for each state."""

from __future__ import annotations

from dataclasses import replace

from nearcase.index.base import IndexState, Part
from nearcase.index.exact import ExactIndex
from nearcase.retrieve.exactness import Exactness


class Counted(ExactIndex):
    """The exact index, in a state that a test sets, which counts how often it is asked for it."""

    def __init__(self, *, is_shared: bool) -> None:
        super().__init__(4)
        self.asked, self.shown = 0, IndexState("qdrant", (Part("one", "collection", 3, is_exact=True),))
        self.shown = replace(self.shown, is_shared=is_shared)

    async def state(self) -> IndexState:
        self.asked += 1
        return self.shown

    def grow(self) -> None:
        self.shown = replace(self.shown, parts=(Part("one", "collection", 30_000, is_exact=False),))


async def test_a_shared_index_is_asked_once_for_each_state() -> None:
    index = Counted(is_shared=True)
    exactness = Exactness(index)
    assert [await exactness.at("a") for _ in range(3)] == [True] * 3
    assert index.asked == 1
    index.grow()
    assert [await exactness.at("b") for _ in range(2)] == [False] * 2
    assert index.asked == 2
    assert not await exactness.at("")
    assert not await exactness.at("")
    assert index.asked == 4  # a state without a name is never remembered


async def test_an_index_of_our_own_may_seal_a_part_at_any_time() -> None:
    index = Counted(is_shared=False)
    exactness = Exactness(index)
    assert await exactness.at("a")
    index.grow()
    assert not await exactness.at("a")
