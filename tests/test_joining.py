"""What is imported joins what is here: nothing that was decided here is lost, and importing again changes nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from stored_cases import equal, stored_cases

from nearcase.index.exact import ExactIndex
from nearcase.retrieve.bulk import change, pages
from nearcase.retrieve.corrections import MERGED, moved
from nearcase.retrieve.joining import joined
from nearcase.transfers import ImportCounts, StoredCase
from nearcase.types import Case, CaseFacts, LabelChange

ID = "11111111-2222-4333-8444-555555555555"


@st.composite
def cases(draw: st.DrawFn) -> Case:
    names = st.sampled_from(["a", "b", "c"])
    rows = draw(st.lists(st.tuples(names, st.sampled_from(["", "0", "1"]), st.integers(1, 6)), max_size=4))
    history = [LabelChange(name, "", new, float(at)) for name, new, at in rows]
    return Case(
        ID,
        CaseFacts(patient_id=draw(st.sampled_from(["P", "Q", ""]))),
        draw(st.dictionaries(names, st.sampled_from(["0", "1"]))),
        flags=tuple(sorted(draw(st.sets(st.sampled_from(["excluded", "no-consent"]))))),
        history=tuple(sorted(history, key=lambda each: each.changed_at_s)),
        added_at_s=draw(st.sampled_from([1.0, 2.0])),
        thumbnail_jpeg=draw(st.sampled_from([b"", b"\xff\xd8"])),
    )


@given(cases(), cases())
def test_joining_again_changes_nothing(stored: Case, imported: Case) -> None:
    once = joined(stored, imported)
    assert joined(once, imported) == once
    first = joined(None, imported)
    assert joined(first, imported) == first
    assert joined(first, first) == first


@given(cases(), cases())
def test_nothing_that_was_decided_here_is_lost(stored: Case, imported: Case) -> None:
    result = joined(stored, imported)
    assert set(result.flags) == {*stored.flags, *imported.flags}
    assert set(result.history) == {*stored.history, *imported.history}
    assert len(result.history) == len(set(result.history))
    assert [change.changed_at_s for change in result.history] == sorted(each.changed_at_s for each in result.history)
    assert result.added_at_s == min(stored.added_at_s, imported.added_at_s)


def test_the_newer_correction_holds_wherever_it_was_made() -> None:
    early, late = LabelChange("a", "", "0", 1.0), LabelChange("a", "0", "1", 2.0)
    old = Case(ID, CaseFacts(), {"a": "0", "b": "x"}, history=(early,))
    new = Case(ID, CaseFacts(), {"a": "1"}, history=(early, late))
    assert joined(new, old).labels == {"a": "1", "b": "x"}
    assert joined(old, new).labels == {"a": "1"}
    removed = Case(ID, CaseFacts(), {}, history=(early, replace(late, new="")))
    assert joined(removed, old).labels == {"b": "x"}


@given(cases(), st.floats(0, 3e-7))
def test_an_export_that_comes_back_changes_nothing(case: Case, cut_s: float) -> None:
    """Times lose what is below a microsecond on the way."""
    kept = replace(joined(None, case), added_at_s=1.7e9 + cut_s)
    kept = replace(kept, history=tuple(replace(each, changed_at_s=each.changed_at_s + cut_s) for each in kept.history))
    told = [replace(each, changed_at_s=round(each.changed_at_s * 1e6) / 1e6) for each in kept.history]
    assert joined(kept, replace(kept, added_at_s=1.7e9, history=tuple(told))) == kept


def test_a_merge_of_patients_that_was_made_here_stays_made() -> None:
    before = Case(ID, CaseFacts(patient_id="P", modality="CT"))
    after = moved(before, Case(ID, CaseFacts(patient_id="Q")), 5.0, "me")
    result = joined(after, before)
    assert (result.facts.patient_id, result.facts.modality) == ("Q", "CT")
    assert [change.name for change in result.history] == [MERGED]


async def test_a_batch_counts_what_it_would_do() -> None:
    made = stored_cases(6)
    index = ExactIndex(16)
    first = await change(index, made[:4], lambda case: False)
    assert first.outcomes == (ImportCounts(added=1),) * 4
    await index.upsert(first.points(1.0))
    relabelled = StoredCase(replace(made[1].case, labels={"new": "1"}), made[1].vector)
    turned = StoredCase(made[2].case, np.roll(made[2].vector, 1))
    batch = [made[0], relabelled, turned, made[3], made[4], made[4], made[5]]
    second = await change(index, batch, lambda case: case.case_id == made[5].case.case_id)
    assert sum(second.outcomes, ImportCounts()) == ImportCounts(added=1, unchanged=3, replaced=2, erased=1)
    assert second.outcomes[-1] == ImportCounts(erased=1)
    assert {stored.case.case_id for stored in second.written} == {
        each.case.case_id for each in (relabelled, turned, made[4])
    }
    assert set(second.before) == {each.case.case_id for each in made[:4]}


async def test_pages_are_whole_and_go_on_after_an_id() -> None:
    made = stored_cases(11)
    index = ExactIndex(16)
    await index.upsert((await change(index, made, lambda case: False)).points(1.0))
    found = [stored async for page in pages(index, page_size=4) for stored in page]
    assert all(map(equal, found, made))
    for number in (0, 3, 10):
        after = made[number].case.case_id
        rest = [stored async for page in pages(index, after=after, page_size=4) for stored in page]
        assert [stored.case.case_id for stored in rest] == [stored.case.case_id for stored in made[number + 1 :]]
    beyond = [page async for page in pages(index, after="ffffffff-ffff-ffff-ffff-ffffffffffff", page_size=4)]
    assert beyond == []
