"""The name of a library's state: equal names, equal cases."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from made_library import CARD, add, made_cases, opened
from test_cases import cases
from test_library import nothing_to_write

from nearcase.index.filters import Equals
from nearcase.retrieve.cases import to_case, to_payload
from nearcase.retrieve.snapshot import Snapshot
from nearcase.types import Case

assert CARD.dimension


@given(st.lists(cases, max_size=6, unique_by=lambda case: case.case_id), st.randoms())
def test_order_does_not_matter_and_removing_undoes_adding(found: list[Case], order: random.Random) -> None:
    first = Snapshot(found)
    shuffled = list(found)
    order.shuffle(shuffled)
    assert Snapshot(shuffled).name == first.name
    for case in shuffled[1:]:
        first.remove(case)
    assert first.name == Snapshot(shuffled[:1]).name


@given(cases)
def test_every_change_of_a_case_changes_the_name(case: Case) -> None:
    name = Snapshot([case]).name
    assert Snapshot([replace(case, labels={**case.labels, "new": "1"})]).name != name
    assert Snapshot([replace(case, facts=replace(case.facts, sex=case.facts.sex + "X"))]).name != name
    assert Snapshot([]).name != name
    assert Snapshot([replace(case, added_at_s=1e9, thumbnail_jpeg=b"x")]).name == name
    assert Snapshot([to_case(case.case_id, to_payload(case))]).name == name


async def test_the_running_name_is_that_of_reading_all_again(tmp_path: Path) -> None:
    library = await opened(tmp_path)
    made = made_cases(patients=6)
    empty = await library.snapshot()
    for case, vector in made:
        await add(library, case, vector)
    whole = await library.snapshot()
    await add(library, *made[0])  # unchanged
    assert await library.snapshot() == whole != empty
    await add(library, replace(made[0][0], labels={"mass": "uncertain"}), made[0][1])
    relabelled = await library.snapshot()
    assert relabelled != whole
    assert await library.erase(Equals("patient_key", "|P3"), nothing_to_write)
    running = await library.snapshot()
    assert running not in (relabelled, whole)
    await library.close()
    again = await opened(tmp_path)
    assert await again.snapshot() == running
    assert await again.erase(Equals("source", "made"), nothing_to_write)
    assert await again.snapshot() == empty
    await again.close()
