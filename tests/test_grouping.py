"""One hit for each series, study or patient, against a full sort; near duplicates and flags are never among them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from made_series import Made, Vector, direction, index_of, made_series

from nearcase.errors import InvalidInput
from nearcase.index.filters import Equals
from nearcase.retrieve.duplicates import MOST, without_near_duplicates
from nearcase.retrieve.scope import UNFLAGGED, Grouping, Query, Scope, SelfExclusion
from nearcase.retrieve.search import search
from nearcase.types import Case, CaseFacts

IMAGES = made_series(0, series=20)
FIELDS = {Grouping.SERIES: "series_uid", Grouping.STUDY: "study_uid", Grouping.PATIENT: "patient_id"}


def query(vector: Vector, case: Case | None = None) -> Query:
    return Query(case or Case("", CaseFacts()), vector)


def group(case: Case, grouping: Grouping) -> str:
    return case.case_id if grouping is Grouping.INSTANCE else getattr(case.facts, FIELDS[grouping]) or case.case_id


def sorted_groups(images: list[Made], vector: Vector, grouping: Grouping) -> list[tuple[str, str]]:
    """Every group with its best image, nearest first."""
    best: dict[str, str] = {}
    for each in sorted(images, key=lambda each: (-float(np.float32(each.vector @ vector)), each.case.case_id)):
        best.setdefault(group(each.case, grouping), each.case.case_id)
    return list(best.items())


@pytest.mark.parametrize("grouping", Grouping)
@pytest.mark.parametrize("k", [1, 7, 100])
async def test_groups_are_those_of_a_full_sort_however_large_the_first_are(grouping: Grouping, k: int) -> None:
    index, rng = await index_of(IMAGES), np.random.default_rng(1)
    for _ in range(5):
        vector = direction(rng)
        found = await search(index, [query(vector)], Scope(k=k, grouping=grouping))
        expected = sorted_groups(IMAGES, vector, grouping)[:k]
        assert [(group(hit.case, grouping), hit.case.case_id) for hit in found.hits] == expected
        assert found.candidate_count == len(IMAGES)
        assert all(hit.matched_count == 1 and hit.score is None for hit in found.hits)


async def test_a_group_names_the_image_that_matched() -> None:
    index = await index_of(IMAGES)
    vector = IMAGES[0].vector
    whole = await search(index, [query(vector)], Scope(k=1, grouping=Grouping.SERIES))
    assert whole.hits[0].matched_instance_uid == IMAGES[0].case.facts.instance_uid
    single = await search(index, [query(vector)], Scope(k=1))
    assert single.hits[0].matched_instance_uid == ""


@pytest.mark.parametrize("grouping", Grouping)
async def test_a_flagged_case_is_never_found_and_not_counted(grouping: Grouping) -> None:
    flags = {0: ("excluded",), 1: ("no-consent",), 2: ("excluded", "no-consent")}
    images = [replace(each, case=replace(each.case, flags=flags.get(number, ()))) for number, each in enumerate(IMAGES)]
    index = await index_of(images)
    for number in flags:
        found = await search(index, [query(images[number].vector)], Scope(k=len(images), grouping=grouping))
        assert found.candidate_count == len(images) - len(flags)
        assert not {images[each].case.case_id for each in flags} & {hit.case.case_id for hit in found.hits}


async def test_near_duplicates_make_room_for_the_next() -> None:
    rng = np.random.default_rng(2)
    copies = [replace(each, case=replace(each.case, facts=CaseFacts())) for each in made_series(3, series=1, lone=0)]
    copies = [
        replace(each, case=replace(each.case, case_id=f"{number:08d}-0000-4000-8000-000000000000"))
        for number, each in enumerate(copies)
    ]
    index = await index_of(IMAGES + copies)
    for least in (0.99, 0.9, 0.5, 0.2):
        for vector in (copies[0].vector, direction(rng)):
            found = await search(index, [query(vector)], Scope(k=20, near_duplicate_similarity=least))
            kept = [each for each in IMAGES + copies if float(each.vector @ vector) < least]
            expected = sorted_groups(kept, vector, Grouping.INSTANCE)[:20]
            assert [hit.case.case_id for hit in found.hits] == [case_id for case_id, _ in expected]
            assert found.candidate_count == len(kept)


async def test_near_duplicates_of_any_example_are_left_out() -> None:
    index = await index_of(IMAGES)
    queries = [query(IMAGES[0].vector), replace(query(IMAGES[-1].vector), weight=-0.5)]
    found = await search(index, queries, Scope(k=len(IMAGES), near_duplicate_similarity=0.9))
    shown = {hit.case.case_id for hit in found.hits}
    for each in IMAGES:
        nearest = max(float(each.vector @ one.vector) for one in queries)
        assert (each.case.case_id in shown) == (nearest < 0.9)


async def test_a_limit_that_most_of_the_library_is_above_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert MOST >= 1000
    monkeypatch.setattr("nearcase.retrieve.duplicates.MOST", 100)
    index = await index_of(IMAGES)
    with pytest.raises(InvalidInput, match="near duplicates"):
        await without_near_duplicates(index, [IMAGES[0].vector], UNFLAGGED, 0.0)


@pytest.mark.parametrize("grouping", [Grouping.SERIES, Grouping.STUDY, Grouping.PATIENT])
async def test_own_patient_and_filter_and_floor_hold_for_groups(grouping: Grouping) -> None:
    index = await index_of(IMAGES)
    for each in IMAGES[::50]:
        own = each.case.facts.patient_id
        found = await search(index, [query(each.vector, each.case)], Scope(k=100, grouping=grouping))
        assert own not in {hit.case.facts.patient_id for hit in found.hits if own}
        everything = Scope(k=100, grouping=grouping, self_exclusion=SelfExclusion.NONE, min_similarity=0.5)
        near = await search(index, [query(each.vector, each.case)], everything)
        assert near.hits[0].case.case_id == each.case.case_id
        assert all(hit.similarity >= 0.5 for hit in near.hits)
    only = Scope(k=100, grouping=grouping, where=Equals("study_uid", "1.3"))
    found = await search(index, [query(IMAGES[0].vector)], only)
    assert {hit.case.facts.study_uid for hit in found.hits} == {"1.3"}
