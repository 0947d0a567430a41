"""A server with a small library, and calls through the generated stubs alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import grpc
import pytest
from serving import scan, serving

from nearcase.v1 import decision_pb2_grpc, library_pb2_grpc, search_pb2_grpc
from nearcase.v1 import library_pb2 as lib
from nearcase.v1 import search_pb2 as s
from nearcase.v1.types_pb2 import FileChunk

PATIENTS = 6


@pytest.fixture(scope="module", name="channel")
def filled_library(tmp_path_factory: pytest.TempPathFactory) -> Iterator[grpc.Channel]:
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
