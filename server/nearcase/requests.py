"""What the client sends, files in one message or in chunks, and what comes back for single items."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.field_mask_pb2 import FieldMask

from nearcase import convert
from nearcase.errors import BY_CODE, InvalidInput, NearcaseError
from nearcase.types import AddResult, CaseFacts
from nearcase.v1 import decision_pb2, library_pb2, search_pb2
from nearcase.v1.types_pb2 import FileChunk, ItemError

CHUNK_BYTES = 2**20
INLINE_BYTES = 4 * 2**20
"""Larger files are added in chunks, so that a broken stream can be resumed."""

NOTHING = CaseFacts()

ALL_FIELDS = FieldMask(
    paths=[
        "facts", "labels", "source", "frame_number", "frame_count", "content_sha256", "add_time", "thumbnail_jpeg",
        "flags", "history",
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


@dataclass(frozen=True, slots=True)
class Example:
    """One thing that the wanted cases look like, or do not look like; it names exactly one source."""

    image: Path | bytes | None = None  # a DICOM, NIfTI, PNG or JPEG file
    case_id: str = ""  # this and the next three: what the library holds
    instance_uid: str = ""
    series_uid: str = ""
    study_uid: str = ""
    text: str = ""  # for an encoder with a text tower
    vector: Sequence[float] = ()  # an embedding that was kept
    encoder_sha256: str = ""  # of the encoder that made it
    facts: CaseFacts = field(default_factory=CaseFacts)  # of the image where it is silent, or of the vector's file
    frame_number: int | None = None  # of the image, counting from 1; None takes the middle frame
    weight: float = 1.0  # negative is "unlike this"

    def message(self) -> search_pb2.Example:
        """Returns what is sent.

        Raises:
            InvalidInput: Not exactly one source is named, or the file can not be read.
        """
        names = ("case_id", "instance_uid", "series_uid", "study_uid", "text")
        stored = {name: getattr(self, name) for name in names if getattr(self, name)}
        count = len(stored) + (self.image is not None) + bool(len(self.vector))
        if count != 1:
            raise InvalidInput(f"expected one source of an example: a file, an id, words or a vector; got {count}")
        weight = None if self.weight == 1.0 else self.weight
        found = search_pb2.Example(frame_number=self.frame_number, weight=weight, **stored)
        if self.image is not None:
            found.image = read(self.image)
        if self.facts != NOTHING and not len(self.vector):
            found.facts.CopyFrom(convert.facts_to_proto(self.facts))
        if len(self.vector):
            found.vector.values.extend(self.vector)
            found.vector.encoder_sha256 = self.encoder_sha256
            found.vector.facts.CopyFrom(convert.facts_to_proto(self.facts))
        return found


@dataclass(frozen=True, slots=True)
class Order:
    """What counts as one hit, and how hits are ordered; an empty word is the server's default."""

    group_by: str = ""  # instance, series, study or patient
    series_method: str = ""  # frequency, max, sum or pooled: the images are one series
    pooling: str = ""  # mean, median or max
    diversity: float = 0.0  # from 0 to below 1
    near_duplicates: float | None = None  # images at or above this cosine to the query are left out

    def write(self, options: search_pb2.SearchOptions) -> None:
        """Sets the fields of a message.

        Raises:
            InvalidInput: A word is none of those above.
        """
        options.MergeFrom(
            search_pb2.SearchOptions(
                grouping=_word(search_pb2.Grouping, "GROUPING", self.group_by),
                series_method=_word(search_pb2.SeriesMethod, "SERIES_METHOD", self.series_method),
                pooling=_word(search_pb2.Pooling, "POOLING", self.pooling),
                diversity=self.diversity,
                near_duplicate_similarity=self.near_duplicates,
            )
        )


def _word(kind: Any, prefix: str, word: str) -> Any:
    names = {name.removeprefix(f"{prefix}_").lower(): number for name, number in kind.items() if number}
    if word and word not in names:
        raise InvalidInput(
            f"expected {prefix.lower()} to be one of {', '.join(names)}; got another", field=prefix.lower()
        )
    return names[word] if word else 0


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


def add_requests(
    items: Iterable[AddItem], unreadable: list[AddResult], received: Callable[[library_pb2.AddImagesStart], int]
) -> Iterator[library_pb2.AddImagesRequest]:
    """Yields the messages of an adding stream; in a thread of grpc's an exception would end it whole.

    Args:
        items: What to add.
        unreadable: Gets a result for each item that can not be sent.
        received: How much of a large file an earlier, broken stream brought over.
    """
    for item in items:
        try:
            data = read(item.file)
            start = add_start(item, data)
        except InvalidInput as refusal:
            unreadable.append(AddResult(item.request_id, error=refusal))
            continue
        except (TypeError, ValueError) as error:
            unreadable.append(AddResult(item.request_id, error=unwritable(error)))
            continue
        if len(data) <= INLINE_BYTES:
            start.data = data
            yield library_pb2.AddImagesRequest(start=start)
            continue
        start.sha256 = hashlib.sha256(data).hexdigest()
        start.offset_bytes = received(start)
        yield library_pb2.AddImagesRequest(start=start)
        for chunk in chunks(data, start.offset_bytes):
            part = library_pb2.AddImagesChunk(request_id=item.request_id, chunk=chunk)
            yield library_pb2.AddImagesRequest(chunk=part)


def unwritable(error: Exception) -> InvalidInput:
    """Returns what protobuf refuses: text outside Unicode, a number out of range, a value of another type."""
    return InvalidInput(f"the request can not be written: {error}", reason="UNWRITABLE_REQUEST")


def named_examples(
    image: Path | bytes | Sequence[Path | bytes] | None,
    frame_number: int | None,
    case_id: str,
    series_uid: str,
    study_uid: str,
    facts: CaseFacts = NOTHING,
) -> list[Example]:
    """Returns the examples that are named without a weight: files first, to which the facts belong."""
    files = () if image is None else (image,) if isinstance(image, Path | bytes) else image
    found = [Example(image=file, frame_number=frame_number, facts=facts) for file in files]
    found += [Example(case_id=case_id)] if case_id else []
    found += [Example(series_uid=series_uid)] if series_uid else []
    return found + ([Example(study_uid=study_uid)] if study_uid else [])


def check_size(size: int, most: int) -> None:
    """Refuses files that are too large together for one message.

    Raises:
        InvalidInput: They are.
    """
    if size > most:
        raise InvalidInput(f"expected files of at most {most} bytes together, got {size}; name fewer")


def search_stream(
    example: search_pb2.Example, options: search_pb2.SearchOptions
) -> Iterator[search_pb2.SearchStreamRequest]:
    """Yields the messages of a search with a large file."""
    start = search_pb2.SearchStreamStart(size_bytes=len(example.image), options=options)
    if example.HasField("frame_number"):
        start.frame_number = example.frame_number
    if example.HasField("facts"):
        start.facts.CopyFrom(example.facts)
    yield search_pb2.SearchStreamRequest(start=start)
    for chunk in chunks(example.image, 0):
        yield search_pb2.SearchStreamRequest(chunk=chunk)


def decide_stream(request: decision_pb2.DecideRequest) -> Iterator[decision_pb2.DecideStreamRequest]:
    """Yields the messages of a decision about a large file."""
    start = decision_pb2.DecideStreamStart(size_bytes=len(request.image), options=request.options)
    if request.HasField("frame_number"):
        start.frame_number = request.frame_number
    if request.HasField("facts"):
        start.facts.CopyFrom(request.facts)
    yield decision_pb2.DecideStreamRequest(start=start)
    for chunk in chunks(request.image, 0):
        yield decision_pb2.DecideStreamRequest(chunk=chunk)


def decide_request(
    image: Path | bytes | Sequence[Path | bytes | Example] | None,
    case_id: str,
    series_uid: str,
    study_uid: str,
    frame_number: int | None,
    facts: CaseFacts = NOTHING,
) -> decision_pb2.DecideRequest:
    """Returns what is decided about, without options.

    Raises:
        InvalidInput: Not exactly one thing is named, or a file can not be read.
    """
    count = (image is not None) + sum(map(bool, (case_id, series_uid, study_uid)))
    if count != 1:
        raise InvalidInput(f"expected one thing to decide about, got {count}")
    stated = None if facts == NOTHING else convert.facts_to_proto(facts)
    request = decision_pb2.DecideRequest(frame_number=frame_number, facts=stated)
    if case_id:
        request.case_id = case_id
    elif series_uid:
        request.series_uid = series_uid
    elif study_uid:
        request.study_uid = study_uid
    elif isinstance(image, Path | bytes):
        request.image = read(image)
    for each in image if image is not None and not isinstance(image, Path | bytes) else ():
        file, number = (each.image, each.frame_number) if isinstance(each, Example) else (each, frame_number)
        if file is None or (isinstance(each, Example) and each.facts != NOTHING):
            raise InvalidInput("expected files to decide about as one, whose facts are given once; got another example")
        request.files.images.add(image=read(file), frame_number=number)
    return request


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
