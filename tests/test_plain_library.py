"""A client in another language has only protos/: adding, reading and erasing through the generated stubs alone."""

from __future__ import annotations

import base64
import hashlib
import io
from pathlib import Path

import grpc
import numpy as np
import pytest
from dicom_files import dicom_file
from PIL import Image as PillowImage
from plain_client import (
    PATIENTS,
    add_one,
    chunks,
    code,
    erase,
    filled_library,  # noqa: F401 (the fixture named channel)
    library,
    start,
    study,
)
from serving import picture, scan

from nearcase.v1 import library_pb2 as lib
from nearcase.v1.types_pb2 import FileChunk

pytestmark = pytest.mark.system


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


def test_the_folder_holds_no_name_that_a_client_sent(
    channel: grpc.Channel, tmp_path_factory: pytest.TempPathFactory
) -> None:
    data = scan(57, "Q")
    digest = hashlib.sha256(data).hexdigest()
    name = "../../../../nameofaclient"
    begin = lib.AddImagesStart(request_id=name, size_bytes=len(data), sha256=digest, data=data[:100])
    list(library(channel).AddImages(iter([lib.AddImagesRequest(start=begin)])))
    base = Path(tmp_path_factory.getbasetemp())
    assert not list(base.rglob("*nameofaclient*"))


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
    corrected = library(channel).UpdateCase(lib.UpdateCaseRequest(instance_uid="1.2.9", set_flags=["no-consent"]))
    assert (corrected.case_count, list(corrected.case.flags)) == (2, ["no-consent"])
    flagged = library(channel).ListCases(lib.ListCasesRequest(filter="flags = no-consent")).cases
    assert {each.case_id for each in flagged} == {each.case_id for each in outcomes}
    assert erase(channel, patient=lib.PatientKey(patient_id="Q")) == 2


@pytest.mark.parametrize("forged", ["x", "bnVsbA==", "NQ==", base64.b64encode(b"[" * 100_000).decode(), "W10="])
def test_forged_page_tokens_are_refused(channel: grpc.Channel, forged: str) -> None:
    request = lib.ListCasesRequest(page_token=forged)
    assert code(lambda: library(channel).ListCases(request)) is grpc.StatusCode.INVALID_ARGUMENT
