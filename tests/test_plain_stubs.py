"""A client in another language has only protos/: searching, deciding, embedding through its stubs alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from plain_client import (
    PATIENTS,
    chunks,
    code,
    deciding,
    filled_library,  # noqa: F401 (the fixture named channel)
    find,
    library,
    searching,
)
from serving import picture, scan

from nearcase.v1 import decision_pb2 as d
from nearcase.v1 import encoder_pb2 as e
from nearcase.v1 import encoder_pb2_grpc
from nearcase.v1 import library_pb2 as lib
from nearcase.v1 import search_pb2 as s

pytestmark = pytest.mark.system


def without_records(answer: d.DecideResponse) -> list[d.Decision]:
    """Each decision has a record of its own, which tells when it was made."""
    assert all(len(decision.record_id) == 64 for decision in answer.decisions)
    for decision in answer.decisions:
        decision.ClearField("record_id")
    return list(answer.decisions)


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
    assert without_records(every) == without_records(answer)


def test_decide_in_chunks_equals_decide(channel: grpc.Channel) -> None:
    data = scan(1, "P0")
    begin = d.DecideStreamStart(size_bytes=len(data), options=d.DecideOptions(finding="mass"))
    parts = [d.DecideStreamRequest(start=begin)] + [d.DecideStreamRequest(chunk=chunk) for chunk in chunks(data, 999)]
    streamed = deciding(channel).DecideStream(iter(parts)).response
    assert without_records(streamed) == without_records(deciding(channel).Decide(d.DecideRequest(image=data)))


def test_a_label_that_nothing_was_fitted_for_has_no_curve_and_no_points(channel: grpc.Channel) -> None:
    assert code(lambda: deciding(channel).GetRoc(d.GetRocRequest(finding="mass"))) is grpc.StatusCode.UNIMPLEMENTED
    assert code(lambda: deciding(channel).GetRoc(d.GetRocRequest(finding="x"))) is grpc.StatusCode.NOT_FOUND
    points = deciding(channel).ListOperatingPoints(d.ListOperatingPointsRequest(finding="mass"))
    assert not points.operating_points
    asked = d.DecideOptions(finding="mass", operating_point=d.OperatingPointChoice(target_sensitivity=0.9))
    decision = deciding(channel).Decide(d.DecideRequest(image=scan(0, "P0"), options=asked)).decisions[0]
    assert (decision.call, decision.abstain_reason) == (d.CALL_ABSTAIN, "NO_OPERATING_POINT")


def test_words_are_refused_by_an_encoder_without_a_text_tower(channel: grpc.Channel) -> None:
    embedding = encoder_pb2_grpc.EncoderServiceStub(channel)
    calls: list[Callable[[], object]] = [
        lambda: embedding.EmbedTexts(e.EmbedTextsRequest(texts=["a film"])),
        lambda: searching(channel).Search(s.SearchRequest(examples=[s.Example(text="a film")])),
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


def test_bytes_that_are_no_message_are_refused_in_words(channel: grpc.Channel) -> None:
    for method in ("SearchService/Search", "LibraryService/GetCase"):
        call = channel.unary_unary(f"/nearcase.v1.{method}", lambda data: data, lambda data: data)
        with pytest.raises(grpc.RpcError) as refused:
            call(b"\xff\xff\xff")
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert dict(cast(Any, refused.value.trailing_metadata()))["nearcase-reason"] == "MALFORMED_MESSAGE"
