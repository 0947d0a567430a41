"""What may be added to a file: the file wins, and what could not be stored or filtered on is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nearcase.errors import InvalidInput
from nearcase.retrieve.annotations import Annotations, annotate, as_stated, given_to, renew
from nearcase.serve.annotations import read_annotations
from nearcase.types import Case, CaseFacts
from nearcase.v1.library_pb2 import Annotations as Message
from nearcase.v1.types_pb2 import CaseFacts as FactsMessage

STATED = Case("c", CaseFacts(patient_id="P1", sex="F", modality="CT"))


def test_the_file_wins_and_gaps_are_filled() -> None:
    facts = FactsMessage(patient_id="P2", sex="m", body_part="HEAD", age_years=40)
    given_facts = read_annotations(Message(facts=facts, labels={"mass": "1"}, source="here"))
    case = annotate(STATED, given_facts)
    assert case.facts == CaseFacts(patient_id="P1", sex="F", modality="CT", body_part="HEAD", age_years=40)
    assert (case.labels, case.source, case.given) == ({"mass": "1"}, "here", ("body_part", "age_years"))
    assert as_stated(case) == STATED


def test_codes_are_written_as_dicom_writes_them() -> None:
    facts = read_annotations(Message(facts=FactsMessage(modality=" dx", sex="f", laterality="l"))).facts
    assert (facts.modality, facts.sex, facts.laterality) == ("DX", "F", "L")


names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}", fullmatch=True)
labels = st.dictionaries(names, st.sampled_from(["1", "a=b", "Ø"]), max_size=5)
facts = st.builds(CaseFacts, patient_id=st.sampled_from(["", "P2"]), body_part=st.sampled_from(["", "HEAD", "KNEE"]))
any_annotations = st.builds(Annotations, labels, facts, st.sampled_from(["", "here"]))


@given(any_annotations, any_annotations)
def test_giving_again_changes_nothing_and_silence_keeps_all(old: Annotations, new: Annotations) -> None:
    case = annotate(STATED, renew(old, new))
    assert annotate(as_stated(case), renew(given_to(case), new)) == case
    assert annotate(as_stated(case), renew(given_to(case), Annotations())) == case


@pytest.mark.parametrize(
    "wrong",
    [
        Message(labels={"": "1"}),
        Message(labels={"1st": "1"}),
        Message(labels={"a b": "1"}),
        Message(labels={"a=b": "1"}),
        Message(labels={"a" * 65: "1"}),
        Message(labels={"a": ""}),
        Message(labels={"a": "x" * 257}),
        Message(labels={f"l{number}": "1" for number in range(65)}),
        Message(source="a\x1b[31m"),
        Message(facts=FactsMessage(age_years=155)),
        Message(facts=FactsMessage(age_years=-1)),
        Message(facts=FactsMessage(age_years=float("nan"))),
        Message(facts=FactsMessage(sex="female")),
        Message(facts=FactsMessage(study_date="2020-01-01")),
        Message(facts=FactsMessage(study_date="20009999")),
        Message(facts=FactsMessage(study_date="2020111")),
        Message(facts=FactsMessage(study_date="\u0662\u0660\u0662\u0660\u0660\u0661\u0660\u0661")),
        Message(facts=FactsMessage(laterality="left-ish")),
        Message(facts=FactsMessage(instance_uid="../../x")),
        Message(facts=FactsMessage(sop_class_uid="not a uid")),
        Message(facts=FactsMessage(patient_id="a\nb")),
    ],
)
def test_what_could_not_be_stored_or_shown_is_refused(wrong: Message) -> None:
    with pytest.raises(InvalidInput) as refused:
        read_annotations(wrong)
    assert len(str(refused.value).splitlines()) == 1
