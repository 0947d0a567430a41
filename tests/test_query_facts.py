"""What is given of a file besides what it states: the patient's own cases are left out, and nothing is passed over."""

from __future__ import annotations

import io
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as PillowImage
from serving import picture, scan, serving

from nearcase.client import AddItem, Client, Example
from nearcase.decide.record import read_record, redacted, replay
from nearcase.errors import InvalidInput
from nearcase.retrieve.agreement import check_agreement
from nearcase.types import CaseFacts
from nearcase.v1 import decision_pb2, decision_pb2_grpc, search_pb2, search_pb2_grpc, types_pb2

OWN = CaseFacts(patient_id="A")
QUERY = picture(7)


def again(data: bytes, kind: str = "JPEG") -> bytes:
    """The same picture, saved by another program."""
    out = io.BytesIO()
    PillowImage.open(io.BytesIO(data)).save(out, kind, quality=95)
    return out.getvalue()


def items() -> list[AddItem]:
    """Two scans and a picture of patient A, of which the picture is the query; and six others."""
    own = [AddItem(f"a{n}", scan(n, "A"), labels={"mass": "1"}) for n in (0, 1)]
    others = [AddItem(f"b{n}", scan(20 + n, f"B{n}"), labels={"mass": "0"}) for n in range(6)]
    return [*own, AddItem("picture", QUERY, labels={"mass": "1"}, facts=OWN), *others]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(tmp_path_factory.mktemp("facts")) as server:
        with Client(server.address) as client:
            assert not [result.error for result in client.add(items()) if result.error]
        yield server.address


@pytest.fixture
def client(address: str) -> Iterator[Client]:
    with Client(address) as found:
        yield found


def decided(client: Client, image: bytes, facts: CaseFacts = CaseFacts()) -> set[str]:  # noqa: B008 (frozen)
    (decision,) = client.decide(image, finding="mass", facts=facts).decisions
    return {piece.hit.case.facts.patient_id for piece in decision.evidence}


def searched(client: Client, image: bytes, facts: CaseFacts = CaseFacts()) -> set[str]:  # noqa: B008
    return {hit.case.facts.patient_id for hit in client.search(image, k=9, facts=facts).hits}


Ask = Callable[..., set[str]]
ASKS = pytest.mark.parametrize("ask", [decided, searched])


@pytest.mark.system
@ASKS
def test_the_patients_own_cases_are_left_out_where_the_patient_is_named(client: Client, ask: Ask) -> None:
    saved = again(QUERY)
    assert "A" in ask(client, saved)  # nobody can know whose picture it is
    assert ask(client, saved, OWN) == {f"B{n}" for n in range(6)}


@pytest.mark.system
@ASKS
def test_the_very_file_that_was_added_is_known_to_be_its_patients(client: Client, ask: Ask) -> None:
    assert ask(client, QUERY) == {f"B{n}" for n in range(6)}


@pytest.mark.system
def test_what_is_not_known_is_said(client: Client) -> None:
    for answer in (client.decide(again(QUERY), finding="mass"), client.search(again(QUERY))):
        patient, copy = answer.notes
        assert "states no patient" in patient
        assert "--patient" in patient
        assert "--near-duplicates" in copy
    for known in (client.decide(QUERY, finding="mass"), client.decide(scan(0, "A"), finding="mass")):
        assert known.notes == ()
    assert client.search(again(QUERY), own_patient=True).notes == ()
    assert not client.search(again(QUERY), facts=OWN).notes
    (first,) = client.search([picture(90), scan(0, "A")]).notes
    assert first.startswith("1 of 2 images state no patient")


@pytest.mark.system
def test_records_say_whether_the_patient_was_known_and_never_who_it_was(client: Client) -> None:
    facts = CaseFacts(patient_id="PLANTED", age_years=61.25, sex="F")
    (decision,) = client.decide(again(QUERY), finding="mass", facts=facts).decisions
    data = client.record(decision.record_id)
    record = read_record(data)
    assert (record.inquiry.has_patient, record.inquiry.facts) == (True, ("patient_id", "age_years", "sex"))
    assert not [planted for planted in (b"PLANTED", b"61.25") if planted in data]
    (unknown,) = client.decide(again(QUERY), finding="mass").decisions
    assert not read_record(client.record(unknown.record_id)).inquiry.has_patient


@pytest.mark.system
@pytest.mark.parametrize(
    ("facts", "field"),
    [
        (CaseFacts(patient_id="B1"), "facts.patient_id"),
        (CaseFacts(modality="MR"), "facts.modality"),
        (CaseFacts(series_uid="1.2.9"), "facts.series_uid"),
    ],
)
def test_a_file_that_states_otherwise_is_refused(client: Client, facts: CaseFacts, field: str) -> None:
    for ask in (decided, searched):
        with pytest.raises(InvalidInput, match="that the file states") as refused:
            ask(client, scan(0, "A"), facts)
        assert refused.value.reason == "FACTS_DIFFER"
        assert "B1" not in str(refused.value)
    with pytest.raises(InvalidInput):
        client.decide([scan(0, "A"), scan(1, "A")], finding="mass", facts=facts)
    assert field.startswith("facts.")


@pytest.mark.system
@pytest.mark.parametrize(
    "facts",
    [
        CaseFacts(age_years=float("nan")),
        CaseFacts(age_years=121.0),
        CaseFacts(sex="X"),
        CaseFacts(patient_id="A\nB"),
        CaseFacts(patient_id="A" * 257),
        CaseFacts(study_date="20230231"),
    ],
)
def test_malformed_facts_are_refused(client: Client, facts: CaseFacts) -> None:
    for ask in (decided, searched):
        with pytest.raises(InvalidInput) as refused:
            ask(client, again(QUERY), facts)
        assert refused.value.reason == "INVALID_INPUT"


@pytest.mark.system
def test_facts_belong_to_files(client: Client) -> None:
    case = client.search(QUERY).hits[0].case.case_id
    with pytest.raises(InvalidInput, match="belong to a file"):
        client.decide(case_id=case, finding="mass", facts=OWN)
    with pytest.raises(InvalidInput, match="belong to a file"):
        client.search(examples=[Example(case_id=case, facts=OWN)])


@pytest.mark.system
def test_words_of_dicom_are_taken_in_any_case(client: Client) -> None:
    assert decided(client, scan(0, "A"), CaseFacts(patient_id=" A ", modality="ct", sex="f")) >= {"B0"}


@pytest.mark.system
def test_streams_take_facts_too(address: str) -> None:
    data, facts = again(QUERY), types_pb2.CaseFacts(patient_id="A")
    with grpc.insecure_channel(address) as channel:
        deciding = [
            decision_pb2.DecideStreamRequest(
                start=decision_pb2.DecideStreamStart(
                    size_bytes=len(data), facts=facts, options=decision_pb2.DecideOptions(finding="mass")
                )
            ),
            decision_pb2.DecideStreamRequest(chunk=types_pb2.FileChunk(data=data)),
        ]
        answer = decision_pb2_grpc.DecisionServiceStub(channel).DecideStream(iter(deciding)).response
        found = {piece.hit.case.facts.patient_id for piece in answer.decisions[0].evidence}
        assert found == {f"B{n}" for n in range(6)}
        searching = [
            search_pb2.SearchStreamRequest(start=search_pb2.SearchStreamStart(size_bytes=len(data), facts=facts)),
            search_pb2.SearchStreamRequest(chunk=types_pb2.FileChunk(data=data)),
        ]
        hits = search_pb2_grpc.SearchServiceStub(channel).SearchStream(iter(searching)).response.hits
        assert {hit.case.facts.patient_id for hit in hits} == found


@pytest.mark.system
def test_near_duplicates_are_left_out_and_then_no_call_is_made(client: Client) -> None:
    saved = again(QUERY)
    (with_copy,) = client.decide(saved, finding="mass").decisions
    assert max(piece.hit.similarity for piece in with_copy.evidence) > 0.95
    answer = client.decide(saved, finding="mass", near_duplicates=0.95)
    (without,) = answer.decisions
    assert max(piece.hit.similarity for piece in without.evidence) < 0.95
    assert len(answer.notes) == 1
    record = read_record(client.record(without.record_id))
    assert record.inquiry.near_duplicate_similarity == 0.95
    assert record.basis.is_narrowed
    for least in (0.5, 1.01, float("nan")):
        with pytest.raises(InvalidInput, match="near_duplicate_similarity"):
            client.decide(saved, finding="mass", near_duplicates=least)


@pytest.mark.system
def test_a_patient_is_left_out_with_and_without_an_issuer(tmp_path: Path) -> None:
    labels = {"mass": "1"}
    with serving(tmp_path) as server, Client(server.address) as client:
        added = [
            AddItem("stated", scan(1, "A", StudyInstanceUID="1.7", SeriesInstanceUID="1.7.1"), labels=labels),
            AddItem("issued", scan(2, "A", IssuerOfPatientID="H", StudyInstanceUID="1.8"), labels=labels),
            AddItem("other", scan(3, "A", IssuerOfPatientID="OTHER", StudyInstanceUID="1.9"), labels=labels),
        ]
        assert not [result.error for result in client.add(added) if result.error]
        query = scan(4, "A", StudyInstanceUID="1.6", SeriesInstanceUID="1.6.1")
        assert not client.search(query).hits  # an id without its issuer may be that of any
        issued = scan(6, "A", IssuerOfPatientID="H", StudyInstanceUID="1.5", SeriesInstanceUID="1.5.1")
        assert {hit.case.facts.patient_id_issuer for hit in client.search(issued).hits} == {"OTHER"}
        given_too = client.search(query, facts=CaseFacts(patient_id_issuer="H")).hits
        assert {hit.case.facts.patient_id_issuer for hit in given_too} == {"OTHER"}
        with pytest.raises(InvalidInput, match="issuer"):
            client.search(
                scan(5, "A", IssuerOfPatientID="H"), facts=CaseFacts(patient_id="A", patient_id_issuer="OTHER")
            )


@pytest.mark.system
def test_a_de_identified_library_knows_the_patient_by_the_real_id_and_keeps_neither(tmp_path: Path) -> None:
    key = tmp_path / "pseudonym.key"
    key.write_text(secrets.token_hex(32))
    key.chmod(0o600)
    folder, named = tmp_path / "data", CaseFacts(patient_id="PLANTED", age_years=61.25)
    options = ("--deidentify", "--pseudonym-key", str(key))
    with serving(folder, *options) as server, Client(server.address) as client:
        scans = [AddItem(str(n), scan(n, "PLANTED" if n < 2 else f"B{n}"), labels={"mass": "1"}) for n in range(5)]
        assert not [result.error for result in client.add(scans) if result.error]
        pseudonym = {hit.case.facts.patient_id for hit in client.search(scan(2, "B2"), k=9).hits}
        (everyone,) = client.decide(again(QUERY), finding="mass").decisions
        assert len(everyone.evidence) == 5
        (decision,) = client.decide(again(QUERY), finding="mass", facts=named).decisions
        assert len(decision.evidence) == 3
        (own,) = [name for name in pseudonym if len(client.search(again(QUERY), facts=CaseFacts(name)).hits) == 3]
        assert own != "PLANTED"
        with pytest.raises(InvalidInput, match="patient that the file states"):
            client.decide(scan(0, "PLANTED"), finding="mass", facts=CaseFacts(patient_id="B2"))
        record = client.record(decision.record_id)
        assert redacted(replay(read_record(record))) == redacted(decision)
        server.process.terminate()
        said = "".join(server.process.communicate(timeout=30))
    assert "PLANTED" not in said
    for file in folder.rglob("*"):
        assert not file.is_file() or b"PLANTED" not in file.read_bytes()


# What agrees

texts = st.sampled_from(["", "1", "2"])
facts = st.builds(
    CaseFacts,
    patient_id=texts,
    patient_id_issuer=texts,
    body_part=texts,
    age_years=st.sampled_from([None, 0.0, 40.0, 40.99, 41.0, 120.0]),
)


@given(facts, facts)
def test_facts_agree_where_no_two_statements_differ(stated: CaseFacts, said: CaseFacts) -> None:
    pairs = [(getattr(stated, name), getattr(said, name)) for name in ("patient_id", "patient_id_issuer", "body_part")]
    differ = any(one and other and one != other for one, other in pairs)
    if stated.age_years is not None and said.age_years is not None:
        differ |= abs(stated.age_years - said.age_years) >= 1.0
    for one, other in ((stated, said), (said, stated)):
        if differ:
            with pytest.raises(InvalidInput):
                check_agreement(one, other)
        else:
            check_agreement(one, other)
