"""A client in another language has only protos/: every RPC that is served, through the generated stubs alone."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import grpc
import numpy as np
import pytest
from dicom_files import dicom_file
from grpc_health.v1 import health_pb2, health_pb2_grpc
from PIL import Image as PillowImage
from serving import picture, scan, serving

from nearcase.v1 import decision_pb2 as d
from nearcase.v1 import decision_pb2_grpc, encoder_pb2_grpc, library_pb2_grpc, search_pb2_grpc
from nearcase.v1 import encoder_pb2 as e
from nearcase.v1 import library_pb2 as lib
from nearcase.v1 import search_pb2 as s
from nearcase.v1.types_pb2 import FileChunk

pytestmark = pytest.mark.system
PATIENTS = 6


@pytest.fixture(scope="module")
def channel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[grpc.Channel]:
    """A server with six patients of two images, even ones with the label mass = 1, odd ones mass = 0."""
    with serving(tmp_path_factory.mktemp("plain")) as server, grpc.insecure_channel(server.address) as channel:
        starts = [
            start(f"{p}-{n}", scan(2 * p + n, f"P{p}"), mass=str(1 - p % 2)) for p in range(PATIENTS) for n in (0, 1)
        ]
        answers = list(library(channel).AddImages(iter(starts)))
        assert {answer.request_id for answer in answers} == {request.start.request_id for request in starts}
        assert all(answer.added.outcome == lib.ADD_OUTCOME_ADDED for answer in answers), answers
        yield channel


def library(channel: grpc.Channel) -> library_pb2_grpc.LibraryServiceStub:
    return library_pb2_grpc.LibraryServiceStub(channel)


def searching(channel: grpc.Channel) -> search_pb2_grpc.SearchServiceStub:
    return search_pb2_grpc.SearchServiceStub(channel)


def deciding(channel: grpc.Channel) -> decision_pb2_grpc.DecisionServiceStub:
    return decision_pb2_grpc.DecisionServiceStub(channel)


def start(request_id: str, data: bytes, **labels: str) -> lib.AddImagesRequest:
    annotations = lib.Annotations(labels=labels, source="made by a test")
    return lib.AddImagesRequest(
        start=lib.AddImagesStart(request_id=request_id, size_bytes=len(data), data=data, annotations=annotations)
    )


def find(data: bytes, **options: object) -> s.SearchRequest:
    return s.SearchRequest(examples=[s.Example(image=data)], options=s.SearchOptions(**options))  # type: ignore[arg-type]


def test_search_by_image_leaves_the_own_patient_out_and_says_what_the_encoder_is(channel: grpc.Channel) -> None:
    answer = searching(channel).Search(find(scan(0, "P0"), k=20))
    assert {hit.case.facts.patient_id for hit in answer.hits} == {f"P{p}" for p in range(1, PATIENTS)}
    assert answer.candidate_count == 2 * (PATIENTS - 1)
    similarities = [hit.similarity for hit in answer.hits]
    assert similarities == sorted(similarities, reverse=True)
    assert not answer.encoder.medical
    assert "not medical" in answer.encoder.statement
    assert answer.query_images[0].facts.patient_id == "P0"
    assert not answer.hits[0].case.thumbnail_jpeg


def test_search_can_find_itself_when_asked_to(channel: grpc.Channel) -> None:
    answer = searching(channel).Search(find(scan(0, "P0"), self_exclusion=s.SELF_EXCLUSION_NONE, k=1))
    assert answer.hits[0].case.facts.instance_uid == answer.query_images[0].facts.instance_uid
    assert answer.hits[0].similarity == pytest.approx(1, abs=1e-5)


def test_search_options_limit_the_hits_and_the_fields(channel: grpc.Channel) -> None:
    request = find(scan(0, "P0"), filter="label.mass = 1", k=3, with_timings=True)
    request.options.case_mask.paths[:] = ["labels", "thumbnail_jpeg"]
    answer = searching(channel).Search(request)
    assert [dict(hit.case.labels) for hit in answer.hits] == [{"mass": "1"}] * 3
    assert answer.hits[0].case.thumbnail_jpeg.startswith(b"\xff\xd8")
    assert answer.query_images[0].thumbnail_jpeg.startswith(b"\xff\xd8")
    assert not answer.hits[0].case.HasField("facts")
    assert answer.timings.total_ms >= answer.timings.search_ms > 0
    least = answer.hits[1].similarity
    narrow = searching(channel).Search(find(scan(0, "P0"), filter="label.mass = 1", min_similarity=least))
    assert [hit.similarity for hit in narrow.hits] == [hit.similarity for hit in answer.hits[:2]]


def test_search_by_stored_case_equals_search_by_its_image(channel: grpc.Channel) -> None:
    by_image = searching(channel).Search(find(scan(4, "P2")))
    uid = by_image.query_images[0].facts.instance_uid
    by_uid = searching(channel).Search(s.SearchRequest(examples=[s.Example(instance_uid=uid)]))
    assert [hit.case.case_id for hit in by_uid.hits] == [hit.case.case_id for hit in by_image.hits]
    stored = library(channel).GetCase(lib.GetCaseRequest(instance_uid=uid)).case
    by_id = searching(channel).Search(s.SearchRequest(examples=[s.Example(case_id=stored.case_id)]))
    assert [hit.similarity for hit in by_id.hits] == pytest.approx([hit.similarity for hit in by_image.hits], abs=1e-6)


def test_several_examples_count_by_their_weights(channel: grpc.Channel) -> None:
    one, two = s.Example(image=scan(0, "P0")), s.Example(image=picture(99), weight=1e-3)
    alone = searching(channel).Search(s.SearchRequest(examples=[one]))
    nearly = searching(channel).Search(s.SearchRequest(examples=[one, two]))
    assert [hit.case.case_id for hit in nearly.hits] == [hit.case.case_id for hit in alone.hits]
    cancelling = s.SearchRequest(examples=[one, s.Example(image=scan(0, "P0"), weight=-1.0)])
    assert code(lambda: searching(channel).Search(cancelling)) is grpc.StatusCode.INVALID_ARGUMENT


def test_search_in_chunks_equals_search_in_one_message(channel: grpc.Channel) -> None:
    data = scan(0, "P0")
    begin = s.SearchStreamStart(size_bytes=len(data), options=s.SearchOptions(k=4))
    parts = [s.SearchStreamRequest(start=begin)]
    parts += [s.SearchStreamRequest(chunk=chunk) for chunk in chunks(data, 1000)]
    streamed = searching(channel).SearchStream(iter(parts)).response
    whole = searching(channel).Search(find(data, k=4))
    assert [hit.case.case_id for hit in streamed.hits] == [hit.case.case_id for hit in whole.hits]
    assert code(lambda: searching(channel).SearchStream(iter(parts[:-1]))) is grpc.StatusCode.INVALID_ARGUMENT
    assert code(lambda: searching(channel).SearchStream(iter(parts[1:]))) is grpc.StatusCode.INVALID_ARGUMENT
    twisted = [parts[0], parts[2], parts[1]]
    assert code(lambda: searching(channel).SearchStream(iter(twisted))) is grpc.StatusCode.INVALID_ARGUMENT


def test_decide_weighs_the_labelled_cases_and_makes_no_call(channel: grpc.Channel) -> None:
    findings = deciding(channel).ListFindings(d.ListFindingsRequest()).findings
    assert [(finding.name, finding.labelled_count) for finding in findings] == [("mass", 2 * PATIENTS)]
    answer = deciding(channel).Decide(
        d.DecideRequest(image=scan(0, "P0"), options=d.DecideOptions(finding="mass", k=6))
    )
    decision = answer.decisions[0]
    assert (decision.call, decision.abstain_reason) == (d.CALL_ABSTAIN, "NO_OPERATING_POINT")
    assert sum(vote.share for vote in decision.votes) == pytest.approx(1)
    assert sum(vote.count for vote in decision.votes) == len(decision.evidence) == 6
    assert all(piece.hit.case.facts.patient_id != "P0" for piece in decision.evidence)
    leading = decision.votes[0].value
    assert {piece.stance == d.STANCE_SUPPORTING for piece in decision.evidence if piece.value == leading} == {True}
    every = deciding(channel).Decide(d.DecideRequest(image=scan(0, "P0"), options=d.DecideOptions(k=6)))
    assert every.decisions == answer.decisions


def test_decide_in_chunks_equals_decide(channel: grpc.Channel) -> None:
    data = scan(1, "P0")
    begin = d.DecideStreamStart(size_bytes=len(data), options=d.DecideOptions(finding="mass"))
    parts = [d.DecideStreamRequest(start=begin)] + [d.DecideStreamRequest(chunk=chunk) for chunk in chunks(data, 999)]
    streamed = deciding(channel).DecideStream(iter(parts)).response
    assert streamed.decisions == deciding(channel).Decide(d.DecideRequest(image=data)).decisions


def test_what_later_engines_will_serve_is_refused_with_that_word(channel: grpc.Channel) -> None:
    embedding = encoder_pb2_grpc.EncoderServiceStub(channel)
    image = scan(0, "P0")
    calls: list[Callable[[], object]] = [
        lambda: deciding(channel).GetRoc(d.GetRocRequest(finding="mass")),
        lambda: deciding(channel).ListOperatingPoints(d.ListOperatingPointsRequest(finding="mass")),
        lambda: deciding(channel).Decide(d.DecideRequest(image=image, options=d.DecideOptions(prevalence=0.1))),
        lambda: embedding.EmbedTexts(e.EmbedTextsRequest(texts=["a film"])),
        lambda: searching(channel).Search(s.SearchRequest(examples=[s.Example(text="a film")])),
        lambda: searching(channel).Search(s.SearchRequest(examples=[s.Example(series_uid="1.2")])),
        lambda: searching(channel).Search(s.SearchRequest(examples=[s.Example(study_uid="1.2")])),
        lambda: searching(channel).Search(find(image, grouping=s.GROUPING_STUDY)),
        lambda: searching(channel).Search(find(image, diversity=0.5)),
        lambda: searching(channel).Search(find(image, series_method=s.SERIES_METHOD_MAX)),
    ]
    for call in calls:
        with pytest.raises(grpc.RpcError) as refused:
            call()
        assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
        assert "UNIMPLEMENTED" in str(refused.value.details())


def test_embed_images_fails_one_image_alone(channel: grpc.Channel) -> None:
    embedding = encoder_pb2_grpc.EncoderServiceStub(channel)
    images = [e.ImageInput(image=scan(0, "P0")), e.ImageInput(image=b"not an image"), e.ImageInput(image=picture(1))]
    results = embedding.EmbedImages(e.EmbedImagesRequest(images=images)).results
    assert [result.WhichOneof("result") for result in results] == ["embedding", "error", "embedding"]
    card = embedding.DescribeEncoder(e.DescribeEncoderRequest())
    assert len(results[0].embedding.values) == card.encoder.dimension
    assert sum(value * value for value in results[0].embedding.values) == pytest.approx(1, abs=1e-5)
    assert "is_medical = false" in card.card_toml
    assert results[1].error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]


def test_list_cases_pages_through_all_once(channel: grpc.Channel) -> None:
    seen: list[str] = []
    request = lib.ListCasesRequest(page_size=5, filter="label.mass = 1")
    while True:
        page = library(channel).ListCases(request)
        assert page.total_size == PATIENTS
        seen += [case.case_id for case in page.cases]
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert len(seen) == len(set(seen)) == PATIENTS
    request.filter = "label.mass = 0"
    assert code(lambda: library(channel).ListCases(request)) is grpc.StatusCode.INVALID_ARGUMENT


def test_statistics_add_up(channel: grpc.Channel) -> None:
    counted = library(channel).GetStatistics(lib.GetStatisticsRequest())
    assert (counted.case_count, counted.patient_count) == (2 * PATIENTS, PATIENTS)
    by_field = {entry.field: dict(entry.counts) for entry in counted.field_counts}
    assert by_field["modality"] == {"CT": 2 * PATIENTS}
    assert by_field["label.mass"] == {"1": PATIENTS, "0": PATIENTS}
    assert counted.size_bytes > 0


def test_adding_again_changes_nothing_and_new_labels_replace(channel: grpc.Channel) -> None:
    data = scan(50, "Q")
    outcomes = [add_one(channel, start("a", data, mass="1")) for _ in range(2)]
    outcomes += [add_one(channel, start("b", data, mass="0"))]
    assert [answer.added.outcome for answer in outcomes] == [
        lib.ADD_OUTCOME_ADDED,
        lib.ADD_OUTCOME_UNCHANGED,
        lib.ADD_OUTCOME_REPLACED,
    ]
    assert len({answer.added.case_id for answer in outcomes}) == 1
    assert erase(channel, patient=lib.PatientKey(patient_id="Q")) == 1


def test_a_bad_item_is_refused_alone_and_leaves_nothing(channel: grpc.Channel) -> None:
    before = library(channel).GetStatistics(lib.GetStatisticsRequest()).case_count
    bad = [
        start("noise", b"\x00" * 500),
        lib.AddImagesRequest(start=lib.AddImagesStart(request_id="", size_bytes=1, data=b"x")),
        lib.AddImagesRequest(start=lib.AddImagesStart(request_id="hash", size_bytes=3, data=b"abc", sha256="0" * 64)),
        lib.AddImagesRequest(start=lib.AddImagesStart(request_id="empty", size_bytes=0)),
        lib.AddImagesRequest(chunk=lib.AddImagesChunk(request_id="nobody", chunk=FileChunk(data=b"x"))),
        start("label", scan(51), **{"bad name": "1"}),
        start("value", scan(51), mass="a\nb"),
        lib.AddImagesRequest(),
    ]
    answers = list(library(channel).AddImages(iter([*bad, start("good", scan(52, "Q"))])))
    kinds = {answer.request_id: answer.WhichOneof("result") for answer in answers}
    assert len(answers) == len(bad) + 1
    assert kinds.pop("good") == "added"
    assert set(kinds.values()) == {"error"}
    assert erase(channel, patient=lib.PatientKey(patient_id="Q")) == 1
    assert library(channel).GetStatistics(lib.GetStatisticsRequest()).case_count == before


def test_a_broken_upload_is_resumed(channel: grpc.Channel) -> None:
    data = scan(53, "Q")
    digest = hashlib.sha256(data).hexdigest()
    begin = lib.AddImagesStart(request_id="large", size_bytes=len(data), sha256=digest, data=data[:3000])
    assert list(library(channel).AddImages(iter([lib.AddImagesRequest(start=begin)]))) == []
    held = library(channel).GetUpload(lib.GetUploadRequest(request_id="large", sha256=digest))
    assert (held.received_bytes, held.size_bytes) == (3000, len(data))
    begin.offset_bytes, begin.data = held.received_bytes, data[3000:5000]
    rest = lib.AddImagesChunk(request_id="large", chunk=FileChunk(offset_bytes=5000, data=data[5000:]))
    answers = list(
        library(channel).AddImages(iter([lib.AddImagesRequest(start=begin), lib.AddImagesRequest(chunk=rest)]))
    )
    assert [answer.added.outcome for answer in answers] == [lib.ADD_OUTCOME_ADDED]
    after = library(channel).GetUpload(lib.GetUploadRequest(request_id="large", sha256=digest))
    assert (after.received_bytes, after.size_bytes) == (0, 0)
    assert erase(channel, case_id=answers[0].added.case_id) == 1


def test_chunks_of_two_items_may_be_interleaved(channel: grpc.Channel) -> None:
    files = {"x": scan(54, "Q"), "y": scan(55, "Q")}
    parts = [
        lib.AddImagesRequest(
            start=lib.AddImagesStart(request_id=name, size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
        )
        for name, data in files.items()
    ]
    pairs = zip(chunks(files["x"], 700), chunks(files["y"], 700), strict=True)
    for pair in pairs:
        parts += [
            lib.AddImagesRequest(chunk=lib.AddImagesChunk(request_id=name, chunk=chunk))
            for name, chunk in zip("xy", pair, strict=True)
        ]
    answers = list(library(channel).AddImages(iter(parts)))
    assert {answer.request_id: answer.WhichOneof("result") for answer in answers} == {"x": "added", "y": "added"}
    assert erase(channel, study_uid=study(answers[0].added.case_id, channel)) == 2


def test_erasing_by_each_key(channel: grpc.Channel) -> None:
    for kind in ("case_id", "instance_uid", "series_uid", "study_uid"):
        case_id = add_one(channel, start("e", scan(56, "Q"))).added.case_id
        facts = library(channel).GetCase(lib.GetCaseRequest(case_id=case_id)).case.facts
        assert erase(channel, **{kind: case_id if kind == "case_id" else getattr(facts, kind)}) == 1
        gone = lib.GetCaseRequest(case_id=case_id)
        assert code(lambda gone=gone: library(channel).GetCase(gone)) is grpc.StatusCode.NOT_FOUND  # type: ignore[misc]
    assert erase(channel, patient=lib.PatientKey(patient_id="nobody")) == 0
    assert code(lambda: library(channel).EraseCases(lib.EraseCasesRequest())) is grpc.StatusCode.INVALID_ARGUMENT
    assert code(lambda: erase(channel, series_uid="")) is grpc.StatusCode.INVALID_ARGUMENT


def test_every_service_says_that_it_serves(channel: grpc.Channel) -> None:
    health = health_pb2_grpc.HealthStub(channel)
    for name in ("", *(f"nearcase.v1.{kind}Service" for kind in ("Search", "Decision", "Library", "Encoder"))):
        assert (
            health.Check(health_pb2.HealthCheckRequest(service=name)).status == health_pb2.HealthCheckResponse.SERVING
        )


def test_a_refusal_carries_details(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        searching(channel).Search(find(scan(0, "P0"), filter="colour = red"))
    metadata: Any = dict(cast(Any, refused.value.trailing_metadata()))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert b"type.googleapis.com/google.rpc.ErrorInfo" in metadata["grpc-status-details-bin"]
    assert b"type.googleapis.com/google.rpc.BadRequest" in metadata["grpc-status-details-bin"]
    assert "\n" not in str(refused.value.details())


def chunks(data: bytes, size: int) -> list[FileChunk]:
    return [FileChunk(offset_bytes=at, data=data[at : at + size]) for at in range(0, len(data), size)]


def add_one(channel: grpc.Channel, request: lib.AddImagesRequest) -> lib.AddImagesResponse:
    (answer,) = library(channel).AddImages(iter([request]))
    return answer


def erase(channel: grpc.Channel, **target: object) -> int:
    return library(channel).EraseCases(lib.EraseCasesRequest(**target)).erased_count  # type: ignore[arg-type]


def study(case_id: str, channel: grpc.Channel) -> str:
    return library(channel).GetCase(lib.GetCaseRequest(case_id=case_id)).case.facts.study_uid


def code(call: Callable[[], object]) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as refused:
        call()
    found: grpc.StatusCode = refused.value.code()
    return found


def test_the_folder_holds_no_name_that_a_client_sent(
    channel: grpc.Channel, tmp_path_factory: pytest.TempPathFactory
) -> None:
    data = scan(57, "Q")
    digest = hashlib.sha256(data).hexdigest()
    name = "../../../../escaped"
    begin = lib.AddImagesStart(request_id=name, size_bytes=len(data), sha256=digest, data=data[:100])
    list(library(channel).AddImages(iter([lib.AddImagesRequest(start=begin)])))
    base = Path(tmp_path_factory.getbasetemp())
    assert not list(base.rglob("*escaped*"))


def test_a_refused_item_has_one_result_however_many_chunks_follow(channel: grpc.Channel) -> None:
    parts = [
        lib.AddImagesRequest(
            start=lib.AddImagesStart(request_id="big", size_bytes=2**50, sha256="0" * 64, data=b"x" * 10)
        )
    ]
    more = lib.AddImagesChunk(request_id="big", chunk=FileChunk(offset_bytes=10, data=b"x"))
    parts += [lib.AddImagesRequest(chunk=more)] * 5
    answers = list(library(channel).AddImages(iter(parts)))
    assert [(answer.request_id, answer.error.reason) for answer in answers] == [("big", "FILE_TOO_LARGE")]


def test_a_case_keeps_its_annotations_and_its_frames_apart(channel: grpc.Channel) -> None:
    frames = np.stack([np.asarray(PillowImage.open(io.BytesIO(picture(seed)))) for seed in range(3)])
    data = dicom_file(frames.astype(np.uint16), PatientID="Q", SOPInstanceUID="1.2.9")
    first = start("f", data, mass="1")
    first.start.frame_number = 1
    outcomes = [add_one(channel, request).added for request in (first, start("f", data), first, start("g", data))]
    added, unchanged = lib.ADD_OUTCOME_ADDED, lib.ADD_OUTCOME_UNCHANGED
    assert [each.outcome for each in outcomes] == [added, added, unchanged, unchanged]
    assert outcomes[0].case_id == outcomes[2].case_id != outcomes[1].case_id == outcomes[3].case_id
    held = library(channel).GetCase(lib.GetCaseRequest(case_id=outcomes[0].case_id)).case
    assert (held.frame_number, dict(held.labels)) == (1, {"mass": "1"})
    assert erase(channel, patient=lib.PatientKey(patient_id="Q")) == 2


@pytest.mark.parametrize("forged", ["x", "bnVsbA==", "NQ==", base64.b64encode(b"[" * 100_000).decode(), "W10="])
def test_forged_page_tokens_are_refused(channel: grpc.Channel, forged: str) -> None:
    request = lib.ListCasesRequest(page_token=forged)
    assert code(lambda: library(channel).ListCases(request)) is grpc.StatusCode.INVALID_ARGUMENT


def test_bytes_that_are_no_message_are_refused_in_words(channel: grpc.Channel) -> None:
    for method in ("SearchService/Search", "LibraryService/GetCase"):
        call = channel.unary_unary(f"/nearcase.v1.{method}", lambda data: data, lambda data: data)
        with pytest.raises(grpc.RpcError) as refused:
            call(b"\xff\xff\xff")
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert dict(cast(Any, refused.value.trailing_metadata()))["nearcase-reason"] == "MALFORMED_MESSAGE"
