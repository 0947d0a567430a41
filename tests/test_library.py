"""The library over the exact index: outcomes, one commit for many, and failures that leave nothing half done."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import numpy as np
import pytest

from nearcase.clock import SystemClock
from nearcase.errors import NotFound, Unready
from nearcase.index.base import Point
from nearcase.index.exact import ExactIndex
from nearcase.index.filters import Equals
from nearcase.retrieve.annotations import Annotations
from nearcase.retrieve.cases import case_id_of, patient_key
from nearcase.retrieve.library import CasePage, Library
from nearcase.retrieve.pending import AddOutcome
from nearcase.types import Case, CaseFacts


class CountingIndex(ExactIndex):
    """Counts commits, and refuses them while `is_broken`."""

    def __init__(self, dimension: int) -> None:
        super().__init__(dimension)
        self.commits = 0
        self.is_broken = False

    async def upsert(self, points: Sequence[Point]) -> None:
        await asyncio.sleep(0.01)
        if self.is_broken:
            raise Unready("the disk is full")
        self.commits += 1
        await super().upsert(points)


@asynccontextmanager
async def opened() -> AsyncIterator[tuple[Library, CountingIndex]]:
    index = CountingIndex(4)
    library = Library(index, SystemClock())
    library.start()
    try:
        yield library, index
    finally:
        await library.close()


NOTHING = Annotations()


async def nothing_to_write(cases: Sequence[Case]) -> None:
    """No ledger here: see test_erasures.py."""


def case(number: int) -> Case:
    facts = CaseFacts(patient_id=f"P{number % 3}", instance_uid=f"1.{number}", modality="CT", study_date="20200101")
    return Case(case_id_of(facts, "", 1), facts, content_sha256=f"{number:064}")


def vector(number: int) -> np.ndarray:
    values = np.random.default_rng(number).normal(size=4).astype(np.float32)
    return values / np.linalg.norm(values)


async def test_outcomes_are_true_even_side_by_side() -> None:
    async with opened() as (library, _):
        first = await asyncio.gather(*(library.add(case(number), NOTHING, vector(number)) for number in range(9)))
        assert set(first) == {AddOutcome.ADDED}
        assert await library.add(case(0), NOTHING, vector(0)) is AddOutcome.UNCHANGED
        assert await library.add(case(0), Annotations({"mass": "1"}), vector(0)) is AddOutcome.REPLACED
        counted = await library.statistics()
        assert (counted.case_count, counted.patient_count) == (9, 3)
        assert counted.field_counts["label.mass"] == {"1": 1}


async def test_what_waits_is_committed_together() -> None:
    async with opened() as (library, index):
        await asyncio.gather(*(library.add(case(number), NOTHING, vector(number)) for number in range(100)))
        assert index.commits < 10
        assert await index.count() == 100


async def test_a_refused_commit_is_told_to_each_and_the_next_works() -> None:
    async with opened() as (library, index):
        index.is_broken = True
        told = await asyncio.gather(
            *(library.add(case(number), NOTHING, vector(number)) for number in range(5)), return_exceptions=True
        )
        assert all(isinstance(error, Unready) for error in told)
        assert await index.count() == 0
        index.is_broken = False
        assert await library.add(case(1), NOTHING, vector(1)) is AddOutcome.ADDED


async def test_unchanged_keeps_the_time_of_adding() -> None:
    async with opened() as (library, _):
        await library.add(case(1), NOTHING, vector(1))
        before, _ = await library.get(case(1).case_id)
        await library.add(replace(case(1), added_at_s=5.0), NOTHING, vector(1))
        after, _ = await library.get(Equals("instance_uid", "1.1"))
        assert before == after


async def test_erasing_a_patient_leaves_the_others() -> None:
    async with opened() as (library, _):
        await asyncio.gather(*(library.add(case(number), NOTHING, vector(number)) for number in range(9)))
        removal = await library.erase(Equals("patient_key", patient_key("P1", "")), nothing_to_write)
        assert removal is not None
        assert (len(removal.cases), removal.found_again_count) == (3, 0)
        assert await library.erase(Equals("patient_key", patient_key("P1", "")), nothing_to_write) is None
        assert (await library.statistics()).case_count == 6
        with pytest.raises(NotFound):
            await library.get(case(1).case_id)


async def test_all_of_a_large_patient_is_erased_at_once() -> None:
    async with opened() as (library, _):
        await asyncio.gather(*(library.add(case(number), NOTHING, vector(1)) for number in range(0, 3303, 3)))
        await library.add(case(1), NOTHING, vector(1))
        removal = await library.erase(Equals("patient_key", patient_key("P0", "")), nothing_to_write)
        assert removal is not None
        assert (len(removal.cases), removal.found_again_count) == (1101, 0)
        assert [each.case_id for each in (await page_of(library)).cases] == [case(1).case_id]


async def page_of(library: Library) -> CasePage:
    return await library.page(limit=10, cursor=None, where=None, with_thumbnails=False)


async def test_what_was_given_is_kept_until_something_new_is_given() -> None:
    unnamed = replace(case(1), facts=CaseFacts(instance_uid="1.1", sex="F"))
    first = Annotations({"mass": "1", "side": "L"}, CaseFacts(patient_id="P1", age_years=40.0, sex="M"), "here")
    async with opened() as (library, _):
        assert await library.add(unnamed, first, vector(1)) is AddOutcome.ADDED
        assert await library.add(unnamed, NOTHING, vector(1)) is AddOutcome.UNCHANGED
        correction = Annotations({"mass": "0"}, CaseFacts(patient_id="P2"))
        assert await library.add(unnamed, correction, vector(1)) is AddOutcome.REPLACED
        stored, _ = await library.get(unnamed.case_id)
        assert (stored.labels, stored.source) == ({"mass": "0", "side": "L"}, "here")
        assert (stored.facts.patient_id, stored.facts.age_years, stored.facts.sex) == ("P2", 40.0, "F")
        assert set(stored.given) == {"patient_id", "age_years"}


async def test_two_of_one_image_at_once_add_up_in_either_order() -> None:
    labelled = Annotations({"mass": "1"}, CaseFacts(body_part="HEAD"))
    for pair in ((NOTHING, labelled), (labelled, NOTHING)):
        async with opened() as (library, _):
            await asyncio.gather(*(library.add(case(1), given, vector(1)) for given in pair))
            stored, _ = await library.get(case(1).case_id)
            assert (stored.labels, stored.facts.body_part) == ({"mass": "1"}, "HEAD")
