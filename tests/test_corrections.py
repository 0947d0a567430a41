"""What people correct stays corrected: labels with their history, flags, merged patients."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_library import NOTHING, case, opened, vector

from nearcase.errors import InvalidInput, NotFound
from nearcase.index.filters import Equals, Filter
from nearcase.retrieve.annotations import Annotations
from nearcase.retrieve.cases import case_id_of, patient_key
from nearcase.retrieve.corrections import MAX_HISTORY, MERGED, Correction, corrected
from nearcase.retrieve.pending import AddOutcome
from nearcase.transfers import StoredCase
from nearcase.types import Case, CaseFacts, LabelChange

names = st.sampled_from(["mass", "side", "grade"])
flags = st.lists(st.sampled_from(["excluded", "no-consent"]), unique=True, max_size=2)


@st.composite
def corrections(draw: st.DrawFn) -> Correction:
    chosen = draw(flags)
    return Correction(
        draw(st.dictionaries(names, st.sampled_from(["", "0", "1"]))),
        set_flags=tuple(chosen),
        clear_flags=tuple(flag for flag in draw(flags) if flag not in chosen),
    )


@given(st.lists(corrections(), max_size=6))
def test_the_history_tells_every_label_at_every_time(made: list[Correction]) -> None:
    """The oracle is a dictionary; read backwards, the history leads from the last labels to the first."""
    now, labels, flagged = replace(case(1), labels={"mass": "1"}), {"mass": "1"}, set[str]()
    for at, correction in enumerate(made):
        labels = {name: value for name, value in {**labels, **correction.labels}.items() if value}
        flagged = flagged - set(correction.clear_flags) | set(correction.set_flags)
        now = corrected(now, correction, float(at))
        assert (now.labels, set(now.flags)) == (labels, flagged)
        assert corrected(now, correction, at + 0.5) == now  # once more changes nothing
    for change in reversed(now.history):
        assert labels.get(change.name, "") == change.new != change.old
        labels = {**labels, change.name: change.old}
    assert {name: value for name, value in labels.items() if value} == {"mass": "1"}


async def test_a_correction_is_kept_when_the_image_is_added_again() -> None:
    async with opened() as (library, _):
        await library.add(case(1), Annotations({"mass": "1"}), vector(1))
        before = await library.snapshot()
        added, _ = await library.get(case(1).case_id)
        (after,) = await library.update(case(1).case_id, Correction({"mass": "0"}, ("excluded",), changed_by="Who"))
        assert await library.snapshot() != before
        assert (after.labels, after.flags, after.added_at_s) == ({"mass": "0"}, ("excluded",), added.added_at_s)
        (change,) = after.history
        assert (change.name, change.old, change.new, change.changed_by) == ("mass", "1", "0", "Who")
        assert await library.add(case(1), NOTHING, vector(1)) is AddOutcome.UNCHANGED
        assert (await library.get(case(1).case_id))[0] == after
        assert await library.add(case(1), Annotations({"mass": "1"}), vector(1), "table") is AddOutcome.REPLACED
        last, kept = await library.get(case(1).case_id)
        assert [(row.old, row.new, row.changed_by) for row in last.history] == [("1", "0", "Who"), ("0", "1", "table")]
        assert last.flags == ("excluded",)
        assert kept.tobytes() == vector(1).tobytes()


async def test_what_changes_nothing_writes_nothing() -> None:
    async with opened() as (library, index):
        await library.add(case(1), Annotations({"mass": "1"}), vector(1))
        commits, name = index.commits, await library.snapshot()
        (same,) = await library.update(
            Equals("instance_uid", "1.1"), Correction({"mass": "1", "none": ""}, (), ("excluded",))
        )
        assert (index.commits, await library.snapshot()) == (commits, name)
        assert same.history == ()
        with pytest.raises(NotFound):
            await library.update(case(2).case_id, Correction({"mass": "1"}))
        for wrong in (Correction(set_flags=("hidden",)), Correction({}, ("excluded",), ("excluded",))):
            with pytest.raises(InvalidInput):
                await library.update(case(1).case_id, wrong)


def frame(number: int) -> Case:
    return replace(case(1), case_id=case_id_of(case(1).facts, "", number), frame_number=number, frame_count=70)


async def test_an_instance_is_all_its_frames() -> None:
    """More of them than one write takes; what can not be done of one is done of none."""
    async with opened() as (library, _):
        frames = [frame(number) for number in range(1, 71)]
        await asyncio.gather(
            *(library.add(each, Annotations({"mass": "1"}), vector(each.frame_number)) for each in frames)
        )
        await library.add(case(2), NOTHING, vector(2))
        where, one = Equals("instance_uid", "1.1"), frames[2].case_id
        (alone,) = await library.update(one, Correction({"mass": "0"}, changed_by="Who"))
        assert await library.count(Equals("labels", "mass=0")) == 1
        after = await library.update(where, Correction({"mass": "0"}, ("no-consent",), changed_by="Who"))
        assert [each.case_id for each in after] == sorted(each.case_id for each in frames)
        assert {(each.labels["mass"], each.flags, len(each.history)) for each in after} == {("0", ("no-consent",), 1)}
        for each in after:
            stored, kept = await library.get(each.case_id)
            assert stored == each
            assert kept.tobytes() == vector(each.frame_number).tobytes()
        assert await library.count(Equals("flags", "no-consent")) == 70
        long = tuple(LabelChange("mass", "1", "0", float(at)) for at in range(MAX_HISTORY))
        await library.put([StoredCase(replace(alone, history=long), vector(3))], lambda _: False)
        with pytest.raises(InvalidInput, match="1000"):
            await library.update(where, Correction({"mass": "1"}))
        assert await library.count(Equals("labels", "mass=0")) == 70
        with pytest.raises(NotFound):
            await library.update(Equals("instance_uid", "1.99"), Correction({"mass": "1"}))


@pytest.mark.parametrize(
    ("patient_id", "issuer", "is_another"),
    [("P1", "H", False), ("P1", "", False), ("", "", False), ("P2", "H", True), ("P2", "", True), ("P1", "K", True)],
)
async def test_another_patients_file_does_not_take_a_case(patient_id: str, issuer: str, is_another: bool) -> None:
    async with opened() as (library, _):
        first = replace(case(1), facts=replace(case(1).facts, patient_id_issuer="H"))
        facts = replace(first.facts, patient_id=patient_id, patient_id_issuer=issuer)
        second = replace(first, facts=facts, content_sha256="f" * 64)
        await library.add(first, Annotations({"mass": "1"}), vector(1))
        (before,) = await library.update(first.case_id, Correction(set_flags=("no-consent",)))
        added, neighbour = await asyncio.gather(
            library.add(second, NOTHING, vector(2)), library.add(case(3), NOTHING, vector(3)), return_exceptions=True
        )
        assert neighbour is AddOutcome.ADDED
        stored, kept = await library.get(first.case_id)
        if is_another:
            assert isinstance(added, InvalidInput)
            assert added.reason == "INSTANCE_OF_ANOTHER_PATIENT"
            assert (stored, kept.tobytes()) == (before, vector(1).tobytes())
        else:
            assert added is AddOutcome.REPLACED
            assert (stored.flags, stored.labels) == (("no-consent",), {"mass": "1"})


async def test_a_long_history_ends_one_item_and_not_its_neighbours() -> None:
    long = replace(case(1), labels={"mass": "0"}, history=(LabelChange("mass", "1", "0", 1.0),) * MAX_HISTORY)
    with pytest.raises(InvalidInput, match="1000"):
        corrected(long, Correction({"mass": "1"}), 2.0)


def patient(name: str) -> Filter:
    return Equals("patient_key", patient_key(name, ""))


async def test_merging_moves_all_cases_and_stays_merged() -> None:
    async with opened() as (library, _):
        await asyncio.gather(*(library.add(case(n), NOTHING, vector(n)) for n in range(9)))
        name = await library.snapshot()
        assert await library.merge(patient("P1"), patient("P0"), "MPI") == 3
        assert await library.snapshot() != name
        assert await library.count(patient("P0")) == 6
        moved, kept = await library.get(case(1).case_id)
        assert kept.tobytes() == vector(1).tobytes()
        ((row,),) = [moved.history]
        assert (row.name, row.old, row.new, row.changed_by) == (MERGED, "|P1", "|P0", "MPI")
        assert await library.merge(patient("P1"), patient("P0")) == 0  # again
        # The file goes on naming the id that is gone, and so does a table.
        assert await library.add(case(1), NOTHING, vector(1)) is AddOutcome.UNCHANGED
        named = Annotations({}, CaseFacts(patient_id="P1"))
        assert await library.add(case(1), named, vector(1)) is AddOutcome.UNCHANGED
        assert await library.count(patient("P1")) == 0
        with pytest.raises(InvalidInput, match="two patients"):
            await library.merge(patient("P0"), patient("P0"))
        with pytest.raises(NotFound):
            await library.merge(patient("P0"), patient("P7"))
        assert await library.merge(patient("P2"), patient("P0")) == 3
        assert await library.count(patient("P0")) == 9


async def test_a_merge_of_a_given_patient_stays_too() -> None:
    unnamed: Case = replace(case(1), facts=CaseFacts(instance_uid="1.1"))
    given_p1 = Annotations({}, CaseFacts(patient_id="P1", patient_id_issuer="A"))
    async with opened() as (library, _):
        await library.add(unnamed, given_p1, vector(1))
        await library.add(case(0), NOTHING, vector(0))
        assert await library.merge(Equals("patient_key", "A|P1"), patient("P0")) == 1
        assert await library.add(unnamed, given_p1, vector(1)) is AddOutcome.UNCHANGED
        merged, _ = await library.get(unnamed.case_id)
        assert (merged.facts.patient_id, merged.facts.patient_id_issuer, merged.given) == ("P0", "", ("patient_id",))
        # An id that is neither is a correction of its own.
        other = Annotations({}, CaseFacts(patient_id="P5"))
        assert await library.add(unnamed, other, vector(1)) is AddOutcome.REPLACED


async def test_a_vanished_caller_does_not_break_a_merge() -> None:
    async with opened() as (library, _):
        await asyncio.gather(*(library.add(case(n), NOTHING, vector(n)) for n in range(0, 300)))
        task = asyncio.create_task(library.merge(patient("P1"), patient("P0")))
        await asyncio.sleep(0.005)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await library.add(case(1000), NOTHING, vector(1))  # waits for the merge's end
        assert await library.count(patient("P1")) in (0, 1)  # 1000 is of P1
