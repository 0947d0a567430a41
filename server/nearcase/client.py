"""The typed client: needs only grpcio and protobuf.

with Client("127.0.0.1:50051") as client:
    for hit in client.search(Path("film.dcm"), k=5).hits:
        print(hit.similarity, hit.case.facts.modality)
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import cast

import grpc

from nearcase import convert, requests
from nearcase.errors import BY_CODE, InvalidInput, NearcaseError, Overloaded, Unready
from nearcase.requests import ALL_FIELDS, AddItem
from nearcase.types import (
    AddResult,
    Case,
    DecisionResult,
    EncoderSummary,
    FindingFit,
    FindingSummary,
    LibraryStatistics,
    OperatingPoint,
    Roc,
    SearchResult,
)
from nearcase.v1 import (
    decision_pb2,
    decision_pb2_grpc,
    encoder_pb2,
    encoder_pb2_grpc,
    library_pb2,
    library_pb2_grpc,
    search_pb2,
    search_pb2_grpc,
)

__all__ = ["DEFAULT_ADDRESS", "AddItem", "AddResult", "Client", "LibraryStatistics"]

DEFAULT_ADDRESS = "127.0.0.1:50051"
MAX_MESSAGE_BYTES = 64 * 2**20
INLINE_BYTES = 4 * 2**20
"""Larger files are added in chunks, so that a broken stream can be resumed."""
UNARY_BYTES = MAX_MESSAGE_BYTES - 2**20
"""Larger files are searched for in chunks."""


class Client:
    """One connection to a nearcase server; safe in threads.

    Every method raises a NearcaseError of the type that the server's status names, Unready when there is no server at
    the address, and Overloaded when it does not answer in time.

    Args:
        address: HOST:PORT.
        timeout_s: For each call; adding has no limit, since it may take hours.
    """

    def __init__(self, address: str = DEFAULT_ADDRESS, *, timeout_s: float = 60.0) -> None:
        self.address, self._timeout_s = address, timeout_s
        sizes = [
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ]
        self._channel = grpc.insecure_channel(address, options=sizes)
        self._search = search_pb2_grpc.SearchServiceStub(self._channel)
        self._decide = decision_pb2_grpc.DecisionServiceStub(self._channel)
        self._library = library_pb2_grpc.LibraryServiceStub(self._channel)
        self._encoder = encoder_pb2_grpc.EncoderServiceStub(self._channel)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def wait_ready(self, timeout_s: float = 5.0) -> None:
        """Waits for the server, which may be starting.

        Raises:
            Unready: None answers in time.
        """
        try:
            grpc.channel_ready_future(self._channel).result(timeout=timeout_s)
        except grpc.FutureTimeoutError:
            raise self._absent() from None

    def close(self) -> None:
        """Closes the connection."""
        self._channel.close()

    def search(
        self,
        image: Path | bytes | None = None,
        *,
        case_id: str = "",
        k: int = 10,
        where: str = "",
        min_similarity: float | None = None,
        own_patient: bool = False,
        thumbnails: bool = False,
        frame_number: int | None = None,
    ) -> SearchResult:
        """Returns the prior cases most like an image, or like a case of the library.

        Args:
            image: A DICOM, PNG or JPEG file; or give case_id.
            case_id: A case of the library.
            k: How many hits.
            where: A filter, for example "modality = CT and age >= 40".
            min_similarity: Least cosine of a hit.
            own_patient: True lets the query's own patient be found.
            thumbnails: Also fetch a small picture of each case and of the query.
            frame_number: Frame of a multi-frame image, counting from 1.
        """
        with self._errors():
            options = search_pb2.SearchOptions(
                k=k,
                filter=where,
                min_similarity=min_similarity,
                self_exclusion=search_pb2.SELF_EXCLUSION_NONE if own_patient else search_pb2.SELF_EXCLUSION_PATIENT,
                case_mask=ALL_FIELDS if thumbnails else None,
                with_timings=True,
            )
            if image is None:
                return self._searched(search_pb2.Example(case_id=case_id), options)
            data = requests.read(image)
            if len(data) > UNARY_BYTES:
                stream = requests.search_stream(data, frame_number, options)
                answer = self._search.SearchStream(stream, timeout=self._timeout_s)
                return convert.result_from_proto(answer.response)
            return self._searched(search_pb2.Example(image=data, frame_number=frame_number), options)

    def _searched(self, example: search_pb2.Example, options: search_pb2.SearchOptions) -> SearchResult:
        request = search_pb2.SearchRequest(examples=[example], options=options)
        return convert.result_from_proto(self._search.Search(request, timeout=self._timeout_s))

    def decide(
        self,
        image: Path | bytes | None = None,
        *,
        case_id: str = "",
        finding: str = "",
        operating_point: str = "",
        sensitivity: float | None = None,
        specificity: float | None = None,
        cost_ratio: float | None = None,
        prevalence: float | None = None,
        k: int = 0,
        where: str = "",
        frame_number: int | None = None,
        thumbnails: bool = False,
    ) -> DecisionResult:
        """Returns what the labelled prior cases say of an image, or of a case of the library.

        Args:
            image: A DICOM, NIfTI, PNG or JPEG file; or give case_id.
            case_id: A case of the library.
            finding: By name; all in scope unless one is named.
            operating_point: A fitted point by name; this and the next three exclude each other.
            sensitivity: The least sensitivity.
            specificity: The least specificity.
            cost_ratio: Cost of a missed finding over that of a false alarm; needs a prevalence.
            prevalence: Where the decision is used, for PPV and NPV.
            k: How many labelled cases to weigh; 0 is the finding's own number.
            where: A filter of the evidence.
            frame_number: Frame of a multi-frame image, counting from 1.
            thumbnails: Also fetch a small picture of each case and of the query.
        """
        with self._errors():
            options = decision_pb2.DecideOptions(
                finding=finding,
                operating_point=requests.choice(operating_point, sensitivity, specificity, cost_ratio),
                prevalence=prevalence,
                k=k,
                filter=where,
                case_mask=ALL_FIELDS if thumbnails else None,
            )
            response = self._decided(image, case_id, frame_number, options)
        return DecisionResult(
            tuple(convert.decision_from_proto(decision) for decision in response.decisions),
            convert.query_image_from_proto(response.query_image),
            convert.encoder_from_proto(response.encoder),
        )

    def _decided(
        self, image: Path | bytes | None, case_id: str, frame_number: int | None, options: decision_pb2.DecideOptions
    ) -> decision_pb2.DecideResponse:
        if image is None:
            request = decision_pb2.DecideRequest(case_id=case_id, frame_number=frame_number, options=options)
            return self._decide.Decide(request, timeout=self._timeout_s)
        data = requests.read(image)
        if len(data) <= UNARY_BYTES:
            request = decision_pb2.DecideRequest(image=data, frame_number=frame_number, options=options)
            return self._decide.Decide(request, timeout=self._timeout_s)
        stream = requests.decide_stream(data, frame_number, options)
        return self._decide.DecideStream(stream, timeout=self._timeout_s).response

    def findings(self) -> tuple[FindingSummary, ...]:
        """Returns what can be decided, by name."""
        request, found = decision_pb2.ListFindingsRequest(page_size=1000), []
        with self._errors():
            while True:
                page = self._decide.ListFindings(request, timeout=self._timeout_s)
                found += [convert.finding_from_proto(finding) for finding in page.findings]
                if not page.next_page_token:
                    return tuple(found)
                request.page_token = page.next_page_token

    def operating_points(self, finding: str) -> tuple[OperatingPoint, ...]:
        """Returns the fitted points of a finding, at most 1000, the most sensitive first."""
        request = decision_pb2.ListOperatingPointsRequest(finding=finding, page_size=1000)
        with self._errors():
            answer = self._decide.ListOperatingPoints(request, timeout=self._timeout_s)
        return tuple(convert.point_from_proto(point) for point in answer.operating_points)

    def roc(self, finding: str) -> Roc:
        """Returns the held-out ROC curve of a fitted finding."""
        with self._errors():
            request = decision_pb2.GetRocRequest(finding=finding)
            return convert.roc_from_proto(self._decide.GetRoc(request, timeout=self._timeout_s))

    def fit(self, finding: FindingSummary) -> FindingFit:
        """Returns the points and the curve of a finding; both are empty where nothing was fitted for it."""
        roc = self.roc(finding.name) if finding.operating_points else None
        return FindingFit(self.operating_points(finding.name), roc, finding.refused_points)

    def record(self, record_id: str) -> bytes:
        """Returns the record of a decision, as `nearcase replay` reads it."""
        with self._errors():
            request = decision_pb2.GetRecordRequest(record_id=record_id)
            return self._decide.GetRecord(request, timeout=self._timeout_s).record

    def add(self, items: Iterable[AddItem]) -> Iterator[AddResult]:
        """Yields one result for each item as soon as it is durable or refused, in any order.

        An item whose result did not arrive, because the connection broke, may be added again: it is never stored twice.
        """
        unreadable: list[AddResult] = []
        with self._errors():
            for response in self._library.AddImages(self._add_requests(items, unreadable)):
                yield requests.add_result(response)
        yield from unreadable

    def _add_requests(
        self, items: Iterable[AddItem], unreadable: list[AddResult]
    ) -> Iterator[library_pb2.AddImagesRequest]:
        """Runs in a thread of grpc's, where an exception would end the whole stream."""
        for item in items:
            try:
                data = requests.read(item.file)
                start = requests.add_start(item, data)
            except InvalidInput as refusal:
                unreadable.append(AddResult(item.request_id, error=refusal))
                continue
            except (TypeError, ValueError) as error:
                unreadable.append(AddResult(item.request_id, error=_unwritable(error)))
                continue
            if len(data) <= INLINE_BYTES:
                start.data = data
                yield library_pb2.AddImagesRequest(start=start)
                continue
            start.sha256 = hashlib.sha256(data).hexdigest()
            start.offset_bytes = self._received(start)
            yield library_pb2.AddImagesRequest(start=start)
            for chunk in requests.chunks(data, start.offset_bytes):
                part = library_pb2.AddImagesChunk(request_id=item.request_id, chunk=chunk)
                yield library_pb2.AddImagesRequest(chunk=part)

    def _received(self, start: library_pb2.AddImagesStart) -> int:
        """How much of a large file an earlier, broken stream brought over."""
        request = library_pb2.GetUploadRequest(request_id=start.request_id, sha256=start.sha256)
        try:
            answer = self._library.GetUpload(request, timeout=self._timeout_s)
        except grpc.RpcError:
            return 0  # if the server is gone, the stream itself will say so
        return answer.received_bytes if answer.size_bytes == start.size_bytes else 0

    def case(self, case_id: str) -> Case:
        """Returns one case with its thumbnail."""
        with self._errors():
            request = library_pb2.GetCaseRequest(case_id=case_id, case_mask=ALL_FIELDS)
            return convert.case_from_proto(self._library.GetCase(request, timeout=self._timeout_s).case)

    def cases(self, where: str = "", *, page_size: int = 500) -> Iterator[Case]:
        """Yields all cases that match, in the order of their ids."""
        request = library_pb2.ListCasesRequest(filter=where, page_size=page_size)
        while True:
            with self._errors():
                page = self._library.ListCases(request, timeout=self._timeout_s)
            yield from (convert.case_from_proto(case) for case in page.cases)
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def erase(
        self,
        *,
        case_id: str = "",
        instance_uid: str = "",
        series_uid: str = "",
        study_uid: str = "",
        patient_id: str = "",
        patient_id_issuer: str = "",
    ) -> int:
        """Removes all cases of one image, series, study or patient, and returns how many that was; name exactly one."""
        request = library_pb2.EraseCasesRequest()
        named = {"case_id": case_id, "instance_uid": instance_uid, "series_uid": series_uid, "study_uid": study_uid}
        targets = {key: value for key, value in named.items() if value}
        if len(targets) + bool(patient_id) != 1:
            raise InvalidInput("name exactly one thing to erase: an image, a series, a study or a patient")
        for key, value in targets.items():
            setattr(request, key, value)
        if patient_id:
            request.patient.patient_id, request.patient.patient_id_issuer = patient_id, patient_id_issuer
        with self._errors():
            return self._library.EraseCases(request, timeout=self._timeout_s).erased_count

    def statistics(self) -> LibraryStatistics:
        """Returns what the library holds."""
        with self._errors():
            answer = self._library.GetStatistics(library_pb2.GetStatisticsRequest(), timeout=self._timeout_s)
        counts = {entry.field: dict(entry.counts) for entry in answer.field_counts}
        encoder = convert.encoder_from_proto(answer.encoder)
        return LibraryStatistics(answer.case_count, answer.patient_count, answer.size_bytes, counts, encoder)

    def embed(self, images: Sequence[Path | bytes]) -> list[tuple[float, ...] | NearcaseError]:
        """Returns the embedding of each image, or why there is none."""
        inputs = [encoder_pb2.ImageInput(image=requests.read(image)) for image in images]
        if sum(len(each.image) for each in inputs) > UNARY_BYTES:
            raise InvalidInput(f"expected images of at most {UNARY_BYTES} bytes together; embed fewer in one call")
        with self._errors():
            request = encoder_pb2.EmbedImagesRequest(images=inputs)
            answer = self._encoder.EmbedImages(request, timeout=self._timeout_s)
        return [
            tuple(result.embedding.values) if result.HasField("embedding") else requests.item_error(result.error)
            for result in answer.results
        ]

    def encoder(self) -> EncoderSummary:
        """Returns what the server's encoder is."""
        with self._errors():
            request = encoder_pb2.DescribeEncoderRequest()
            answer = self._encoder.DescribeEncoder(request, timeout=self._timeout_s)
        return convert.encoder_from_proto(answer.encoder)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except grpc.RpcError as error:
            raise self._translate(error) from None
        except (TypeError, ValueError) as error:
            raise _unwritable(error) from None

    def _translate(self, error: grpc.RpcError) -> NearcaseError:
        if not hasattr(error, "trailing_metadata"):  # grpc gives each failed call one, but does not promise it
            return NearcaseError("the call failed before it reached the server")
        call = cast(grpc.Call, error)
        code, message = call.code(), call.details() or "no message"
        reason = dict(call.trailing_metadata() or ()).get("nearcase-reason")
        if reason is None and code is grpc.StatusCode.UNAVAILABLE:
            return self._absent()
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            late = f"the server at {self.address} did not answer within {self._timeout_s:g} s"
            return Overloaded(late, reason="DEADLINE")
        return BY_CODE.get(code.name, NearcaseError)(message, reason=str(reason) if reason else None)

    def _absent(self) -> Unready:
        hint = f"no nearcase server answers at {self.address}; start one with: nearcase serve"
        return Unready(hint, reason="NO_SERVER")


def _unwritable(error: Exception) -> InvalidInput:
    """What protobuf refuses: text outside Unicode, a number out of range, a value of another type."""
    return InvalidInput(f"the request can not be written: {error}", reason="UNWRITABLE_REQUEST")
