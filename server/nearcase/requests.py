"""What the client sends, files in one message or in chunks, and what comes back for single items."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from google.protobuf.field_mask_pb2 import FieldMask

from nearcase import convert
from nearcase.errors import BY_CODE, InvalidInput, NearcaseError
from nearcase.types import AddResult, CaseFacts
from nearcase.v1 import decision_pb2, library_pb2, search_pb2
from nearcase.v1.types_pb2 import FileChunk, ItemError

CHUNK_BYTES = 2**20

ALL_FIELDS = FieldMask(
    paths=[
        "facts", "labels", "source", "frame_number", "frame_count", "content_sha256", "add_time", "thumbnail_jpeg",
    ]
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class AddItem:
    """An image to add."""

    request_id: str  # chosen by the caller, unique among the items of one call
    file: Path | bytes
    labels: Mapping[str, str] = field(default_factory=dict)
    facts: CaseFacts = field(default_factory=CaseFacts)  # for what the file does not state
    source: str = ""  # where the image came from, in words
    frame_number: int | None = None  # counts from 1; None takes the middle frame


def read(file: Path | bytes) -> bytes:
    """Returns the bytes of a file.

    Raises:
        InvalidInput: The file can not be read.
    """
    try:
        return file if isinstance(file, bytes) else file.read_bytes()
    except OSError as error:
        raise InvalidInput(f"the file can not be read: {error.strerror}", reason="UNREADABLE_FILE") from None


def chunks(data: bytes, offset: int) -> Iterator[FileChunk]:
    """Yields the file from an offset on."""
    for at in range(offset, len(data), CHUNK_BYTES):
        yield FileChunk(offset_bytes=at, data=data[at : at + CHUNK_BYTES])


def add_start(item: AddItem, data: bytes) -> library_pb2.AddImagesStart:
    """Returns the first message of an item, without its data."""
    annotations = library_pb2.Annotations(
        labels=item.labels, facts=convert.facts_to_proto(item.facts), source=item.source
    )
    return library_pb2.AddImagesStart(
        request_id=item.request_id, size_bytes=len(data), frame_number=item.frame_number, annotations=annotations
    )


def search_stream(
    data: bytes, frame_number: int | None, options: search_pb2.SearchOptions
) -> Iterator[search_pb2.SearchStreamRequest]:
    """Yields the messages of a search with a large file."""
    start = search_pb2.SearchStreamStart(size_bytes=len(data), frame_number=frame_number, options=options)
    yield search_pb2.SearchStreamRequest(start=start)
    for chunk in chunks(data, 0):
        yield search_pb2.SearchStreamRequest(chunk=chunk)


def decide_stream(
    data: bytes, frame_number: int | None, options: decision_pb2.DecideOptions
) -> Iterator[decision_pb2.DecideStreamRequest]:
    """Yields the messages of a decision about a large file."""
    start = decision_pb2.DecideStreamStart(size_bytes=len(data), frame_number=frame_number, options=options)
    yield decision_pb2.DecideStreamRequest(start=start)
    for chunk in chunks(data, 0):
        yield decision_pb2.DecideStreamRequest(chunk=chunk)


def choice(
    operating_point: str, sensitivity: float | None, specificity: float | None, cost_ratio: float | None
) -> decision_pb2.OperatingPointChoice | None:
    """Returns the one choice that is given, None without any.

    Raises:
        InvalidInput: Several are given.
    """
    given = {
        "name": operating_point or None,
        "target_sensitivity": sensitivity,
        "target_specificity": specificity,
        "cost_ratio": cost_ratio,
    }
    stated = {key: value for key, value in given.items() if value is not None}
    if len(stated) > 1:
        raise InvalidInput(f"expected one choice of operating point, got {len(stated)}", field="operating_point")
    return decision_pb2.OperatingPointChoice(**stated) if stated else None  # type: ignore[arg-type]


def add_result(response: library_pb2.AddImagesResponse) -> AddResult:
    """Returns what became of an item."""
    if response.HasField("error"):
        return AddResult(response.request_id, error=item_error(response.error))
    outcome = library_pb2.AddOutcome.Name(response.added.outcome).removeprefix("ADD_OUTCOME_").lower()
    return AddResult(response.request_id, response.added.case_id, outcome)


_KINDS: Mapping[int, Callable[..., NearcaseError]] = {
    grpc.StatusCode[name].value[0]: kind for name, kind in BY_CODE.items()
}


def item_error(error: ItemError) -> NearcaseError:
    """Returns the error of one item of many."""
    return _KINDS.get(error.code, NearcaseError)(error.message, reason=error.reason)
