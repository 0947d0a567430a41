"""What may be added to a file: the file wins, and what could not be stored or filtered on is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nearcase.errors import InvalidInput
from nearcase.serve.annotations import adds_nothing, check, merge
from nearcase.types import Case, CaseFacts
from nearcase.v1.library_pb2 import Annotations
from nearcase.v1.types_pb2 import CaseFacts as FactsMessage

STATED = Case("c", CaseFacts(patient_id="P1", sex="F", modality="CT"))


def test_the_file_wins_and_gaps_are_filled() -> None:
    given_facts = FactsMessage(patient_id="P2", sex="M", body_part="HEAD", age_years=40)
    merged = merge(STATED, Annotations(facts=given_facts, labels={"mass": "1"}, source="here"))
    assert merged.facts == CaseFacts(patient_id="P1", sex="F", modality="CT", body_part="HEAD", age_years=40)
    assert (merged.labels, merged.source) == ({"mass": "1"}, "here")
    assert adds_nothing(merged, Annotations(facts=given_facts, labels={"mass": "1"}, source="here"))
    assert not adds_nothing(merged, Annotations(facts=given_facts, labels={"mass": "0"}, source="here"))
    assert not adds_nothing(merged, Annotations(facts=given_facts, source="here"))


names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}", fullmatch=True)


@given(st.dictionaries(names, st.sampled_from(["1", "a=b", "Ø"]), max_size=5), st.sampled_from(["", "here"]))
def test_merging_twice_is_merging_once(labels: dict[str, str], source: str) -> None:
    added = Annotations(labels=labels, source=source)
    check(added)
    assert merge(merge(STATED, added), added) == merge(STATED, added)


@pytest.mark.parametrize(
    "wrong",
    [
        Annotations(labels={"": "1"}),
        Annotations(labels={"1st": "1"}),
        Annotations(labels={"a b": "1"}),
        Annotations(labels={"a=b": "1"}),
        Annotations(labels={"a" * 65: "1"}),
        Annotations(labels={"a": ""}),
        Annotations(labels={"a": "x" * 257}),
        Annotations(labels={f"l{number}": "1" for number in range(65)}),
        Annotations(source="a\x1b[31m"),
        Annotations(facts=FactsMessage(age_years=155)),
        Annotations(facts=FactsMessage(age_years=-1)),
        Annotations(facts=FactsMessage(age_years=float("nan"))),
        Annotations(facts=FactsMessage(sex="female")),
        Annotations(facts=FactsMessage(study_date="2020-01-01")),
        Annotations(facts=FactsMessage(patient_id="a\nb")),
    ],
)
def test_what_could_not_be_stored_or_shown_is_refused(wrong: Annotations) -> None:
    with pytest.raises(InvalidInput) as refused:
        check(wrong)
    assert len(str(refused.value).splitlines()) == 1
