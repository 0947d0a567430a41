"""What another encoder changes is told as a slow oracle tells it; the same encoder changes nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from stored_cases import DIMENSION, stored_cases

from nearcase.index.exact import ExactIndex
from nearcase.index.filters import Equals
from nearcase.reembed import comparing
from nearcase.reembed.areas import auroc
from nearcase.reembed.comparing import Comparison, compare
from nearcase.reembed.pairs import joined_by_id, pairing_in
from nearcase.retrieve.bulk import change
from nearcase.retrieve.cases import other_origin, to_case
from nearcase.transfers import StoredCase


def cases_of_patients(count: int, seed: int = 3) -> list[StoredCase]:
    """Two images of a patient; the label shows in the vector. Some state no patient, some are flagged."""
    rng = np.random.default_rng(seed)
    found = []
    for number, stored in enumerate(stored_cases(count, seed=seed)):
        value = str(number % 2)
        labels = {"mass": value, "grade": "abc"[number % 3]} if number % 5 else {}
        vector = rng.normal(size=DIMENSION) + np.eye(DIMENSION)[0] * (2.0 if value == "1" else 0.0)
        unit = (vector / np.linalg.norm(vector)).astype(np.float32)
        found.append(StoredCase(replace(stored.case, labels=labels), unit))
    return found


def turned(cases: list[StoredCase], seed: int) -> list[StoredCase]:
    """The same cases as another encoder sees them: the same for seed 0, else noise that grows with it."""
    rng = np.random.default_rng(9)
    noise = rng.normal(size=(len(cases), DIMENSION)) * seed
    vectors = [stored.vector + each for stored, each in zip(cases, noise, strict=True)]
    units = [(vector / np.linalg.norm(vector)).astype(np.float32) for vector in vectors]
    return [StoredCase(stored.case, unit) for stored, unit in zip(cases, units, strict=True)]


def compared(folder: Path, old: list[StoredCase], new: list[StoredCase], sample: int = 1000) -> Comparison:
    with pairing_in(folder) as pairing:
        for one, other in zip(old, new, strict=True):
            pairing.take(one.case, one.vector, other.vector)
        return compare(pairing.finish(DIMENSION, DIMENSION), sample=sample)


def test_the_same_encoder_changes_nothing(tmp_path: Path) -> None:
    cases = cases_of_patients(80)
    found = compared(tmp_path, cases, cases)
    assert found.overlap is not None
    assert (found.overlap.mean.value, found.overlap.mean.low, found.overlap.mean.high) == (1.0, 1.0, 1.0)
    assert [(change.name, change.changed_count) for change in found.labels] == [("grade", 0), ("mass", 0)]
    for change_ in found.labels:
        assert change_.old_correct_count == change_.new_correct_count
        assert all(area.old == area.new and area.difference.value == 0.0 for area in change_.areas)
    assert list(tmp_path.iterdir()) == []


async def test_figures_are_those_of_the_search_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oracle searches the exact index with the filters of a real search, one query after the other."""
    monkeypatch.setattr(comparing, "BLOCK_ELEMENTS", 500)  # several blocks
    old = cases_of_patients(90)
    new = turned(old, 1)
    found = compared(tmp_path, old, new)
    shown = [stored for stored in old if not stored.case.flags]
    shares, changed, right = [], 0, Counter[str]()
    for number, query in enumerate(shown):
        neighbours = [await nearest(each, number) for each in (old, new)]
        both = {stored.case.case_id for stored in neighbours[0]} & {stored.case.case_id for stored in neighbours[1]}
        shares.append(len(both) / len(neighbours[0]))
        if "mass" in query.case.labels:
            votes = [await voted(each, number) for each in (old, new)]
            changed += votes[0] != votes[1]
            right["old"] += votes[0] == query.case.labels["mass"]
            right["new"] += votes[1] == query.case.labels["mass"]
    assert found.overlap is not None
    assert found.overlap.mean.value == pytest.approx(np.mean(shares))
    assert found.overlap.query_count == len(shown) == found.query_count
    mass = next(each for each in found.labels if each.name == "mass")
    assert (mass.changed_count, mass.old_correct_count, mass.new_correct_count) == (changed, right["old"], right["new"])
    assert found.overlap.mean.low < found.overlap.mean.value < found.overlap.mean.high
    (area,) = mass.areas
    assert area.value == "1"
    assert area.old.low < area.old.value < area.old.high


async def nearest(cases: list[StoredCase], number: int, label: str = "", k: int = 10) -> list[StoredCase]:
    shown = [stored for stored in cases if not stored.case.flags]
    index = ExactIndex(DIMENSION)
    candidates = [stored for stored in shown if not label or label in stored.case.labels]
    await index.upsert((await change(index, candidates, lambda case: False)).points(1.0))
    query = shown[number]
    where = other_origin([query.case], with_patient=True) or Equals("source", "nowhere")
    found = await index.search(query.vector, limit=k, where=where)
    by_id = {stored.case.case_id: stored for stored in shown}
    return [by_id[to_case(each.point_id, each.payload).case_id] for each in found]


async def voted(cases: list[StoredCase], number: int) -> str:
    query = [stored for stored in cases if not stored.case.flags][number]
    votes = Counter[str]()
    for stored in await nearest(cases, number, "mass"):
        votes[stored.case.labels["mass"]] += np.exp(100 * float(stored.vector @ query.vector))
    return max(sorted(votes), key=lambda value: votes[value])


def test_less_alike_encoders_overlap_less(tmp_path: Path) -> None:
    old = cases_of_patients(120)
    overlaps = [compared(tmp_path, old, turned(old, seed)).overlap for seed in (0, 1, 9)]
    means = [overlap.mean.value for overlap in overlaps if overlap]
    assert means[0] > means[1] > means[2]


def test_few_cases_give_no_figures_rather_than_wrong_ones(tmp_path: Path) -> None:
    cases = cases_of_patients(3)
    found = compared(tmp_path, cases[:1], cases[:1])
    assert (found.overlap, found.labels) == (None, ())
    assert compared(tmp_path, [], []).query_count == 0
    assert compared(tmp_path, cases, cases).labels == ()


def test_a_sample_is_of_its_size_and_the_same_again(tmp_path: Path) -> None:
    cases = cases_of_patients(100)
    found = compared(tmp_path, cases, turned(cases, 2), sample=20)
    assert found.query_count == 20
    assert found == compared(tmp_path, cases, turned(cases, 2), sample=20)


def test_auroc_counts_pairs() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        scores = rng.integers(0, 5, 30) / 4.0
        positive = rng.random(30) < 0.4
        pairs = [(p > n) + (p == n) / 2 for p in scores[positive] for n in scores[~positive]]
        assert auroc(scores, positive) == pytest.approx(np.mean(pairs))
    assert np.isnan(auroc(np.array([1.0]), np.array([True])))


async def test_cases_of_both_are_joined_by_id() -> None:
    cases = stored_cases(9)
    pairs = [pair async for pair in joined_by_id(one_by_one(cases[:6]), one_by_one([*cases[2:4], *cases[5:]]))]
    assert [one.case.case_id for one, _ in pairs] == [cases[at].case.case_id for at in (2, 3, 5)]
    assert all(one.case == other.case for one, other in pairs)


async def one_by_one(cases: list[StoredCase]) -> AsyncIterator[StoredCase]:
    for stored in cases:
        yield stored
