"""Search over the exact index: exclusion, scope and joined examples."""

from __future__ import annotations

import asyncio
import gc

import numpy as np
import pytest

from nearcase.errors import InvalidInput, Unready
from nearcase.index.base import Neighbour, Point
from nearcase.index.exact import ExactIndex
from nearcase.index.filters import Equals, Filter
from nearcase.retrieve.cases import case_id_of, to_payload
from nearcase.retrieve.search import Query, Scope, SelfExclusion, join, search
from nearcase.types import Case, CaseFacts

PATIENTS, EACH = 8, 5


def cases() -> list[Case]:
    made = []
    for patient in range(PATIENTS):
        for number in range(EACH):
            facts = CaseFacts(
                patient_id=f"P{patient}",
                study_uid=f"1.{patient}.{number // 2}",
                instance_uid=f"1.{patient}.{number}",
                modality="CT" if patient % 2 else "MR",
            )
            made.append(Case(case_id_of(facts, "", 1), facts))
    return made


def vector(seed: int) -> np.ndarray:
    values = np.random.default_rng(seed).normal(size=16).astype(np.float32)
    return values / np.linalg.norm(values)


@pytest.fixture
async def index() -> ExactIndex:
    filled = ExactIndex(16)
    await filled.upsert([Point(case.case_id, vector(seed), to_payload(case)) for seed, case in enumerate(cases())])
    return filled


async def test_a_patient_never_retrieves_themself_unless_asked_to(index: ExactIndex) -> None:
    for seed, case in enumerate(cases()):
        query = Query(case, vector(seed))
        found = await search(index, [query], Scope(k=100))
        assert {hit.case.facts.patient_id for hit in found.hits} == {f"P{p}" for p in range(PATIENTS)} - {
            case.facts.patient_id
        }
        assert found.candidate_count == (PATIENTS - 1) * EACH
        own = await search(index, [query], Scope(k=1, self_exclusion=SelfExclusion.NONE))
        assert own.hits[0].case.case_id == case.case_id
        study = await search(index, [query], Scope(k=100, self_exclusion=SelfExclusion.STUDY))
        assert case.facts.study_uid not in {hit.case.facts.study_uid for hit in study.hits}
        assert case.facts.patient_id in {hit.case.facts.patient_id for hit in study.hits}


class Failing(ExactIndex):
    """Both of its answers are late, and errors."""

    async def count(self, where: Filter | None = None) -> int:
        raise Unready("no count")

    async def search(self, *_: object, **__: object) -> list[Neighbour]:
        await asyncio.sleep(0.01)
        raise Unready("no search")


async def test_a_search_that_fails_leaves_no_count_behind(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(Unready, match="no search"):
        await search(Failing(16), [Query(cases()[0], vector(0))], Scope())
    await asyncio.sleep(0)
    gc.collect()
    assert not asyncio.all_tasks() - {asyncio.current_task()}
    assert not caplog.records  # nothing of an exception that was never retrieved


async def test_hits_equal_a_full_sort(index: ExactIndex) -> None:
    query = vector(999)
    found = await search(index, [Query(Case("q", CaseFacts()), query)], Scope(k=7, where=Equals("modality", "CT")))
    pairs = [(float(vector(seed) @ query), case) for seed, case in enumerate(cases()) if case.facts.modality == "CT"]
    expected = sorted(pairs, key=lambda pair: -pair[0])[:7]
    assert [hit.case.case_id for hit in found.hits] == [case.case_id for _, case in expected]
    assert [hit.similarity for hit in found.hits] == pytest.approx([similarity for similarity, _ in expected], abs=1e-6)
    least = found.hits[3].similarity
    some = await search(
        index, [Query(Case("q", CaseFacts()), query)], Scope(k=7, where=Equals("modality", "CT"), min_similarity=least)
    )
    assert some.hits == found.hits[:4]


def test_joining_weighs_and_normalises() -> None:
    case = Case("q", CaseFacts())
    one, two = vector(1), vector(2)
    assert join([Query(case, one)]) == pytest.approx(one)
    assert join([Query(case, one, 2.0), Query(case, one, -1.0)]) == pytest.approx(one, abs=1e-6)
    mixed = join([Query(case, one, 3.0), Query(case, two, 1.0)])
    assert float(np.linalg.norm(mixed)) == pytest.approx(1)
    assert float(mixed @ one) > float(mixed @ two)
    with pytest.raises(InvalidInput):
        join([Query(case, one), Query(case, one, -1.0)])
