"""The typed client: needs only grpcio and protobuf.

with Client("127.0.0.1:50051") as client:
    for hit in client.search(Path("film.dcm"), k=5).hits:
        print(hit.similarity, hit.case.facts.modality)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import cast

import grpc

from nearcase import convert, requests
from nearcase.channel import MAX_MESSAGE_BYTES, Tls, open_channel
from nearcase.errors import BY_CODE, InvalidInput, NearcaseError, NotAllowed, Overloaded, Unready
from nearcase.library_client import LibraryClient
from nearcase.requests import ALL_FIELDS, AddItem, Example, Order
from nearcase.transfer_client import TransferClient
from nearcase.types import (
    AddResult,
    Case,
    CaseFacts,
    DecisionResult,
    EncoderSummary,
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

__all__ = ["DEFAULT_ADDRESS", "AddItem", "AddResult", "Client", "Example", "LibraryStatistics", "Order", "Tls"]

DEFAULT_ADDRESS = "127.0.0.1:50051"
DEFAULT_ORDER = Order()
UNARY_BYTES = MAX_MESSAGE_BYTES - 2**20
"""Larger files are searched for in chunks."""


class Client:
    """One connection to a nearcase server; safe in threads.

    Every method raises a NearcaseError of the type that the server's status names, Unready when there is no server at
    the address, and Overloaded when it does not answer in time.

    Args:
        address: HOST:PORT.
        timeout_s: For each call; adding and erasing have no limit, since they may take long.
        tenant: Whose cases, where the server takes the caller's word for it.
        tls: How the connection is encrypted; None encrypts nothing.
        token: Who asks, as text or as a file that may be replaced at any time.
        insecure: Send the token though nothing is encrypted and the server is on another machine.

    Raises:
        InvalidInput: A file can not be read, or the token would be readable on its way.
    """

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        *,
        timeout_s: float = 60.0,
        tenant: str = "",
        tls: Tls | None = None,
        token: str | Path = "",
        insecure: bool = False,
    ) -> None:
        self.address, self._timeout_s = address, timeout_s
        self._channel = open_channel(address, tenant, tls=tls, token=token, insecure=insecure)
        self._search = search_pb2_grpc.SearchServiceStub(self._channel)
        self._decide = decision_pb2_grpc.DecisionServiceStub(self._channel)
        self._library = library_pb2_grpc.LibraryServiceStub(self._channel)
        self._encoder = encoder_pb2_grpc.EncoderServiceStub(self._channel)
        self.library = LibraryClient(self._library, self._errors, timeout_s)
        self.transfer = TransferClient(self._library, self._errors)

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
        image: Path | bytes | Sequence[Path | bytes] | None = None,
        *,
        case_id: str = "",
        series_uid: str = "",
        study_uid: str = "",
        examples: Sequence[Example] = (),
        k: int = 10,
        where: str = "",
        min_similarity: float | None = None,
        own_patient: bool = False,
        order: Order = DEFAULT_ORDER,
        thumbnails: bool = False,
        frame_number: int | None = None,
        facts: CaseFacts = requests.NOTHING,
    ) -> SearchResult:
        """Returns the prior cases most like an image, or like a case, series or study of the library.

        Args:
            image: A DICOM, NIfTI, PNG or JPEG file, or several; at most 256.
            case_id: A case of the library; this and the next two count as examples too.
            series_uid: A series of the library.
            study_uid: A study of the library.
            examples: Whatever else the wanted cases look like or, with a negative weight, do not look like.
            k: How many hits.
            where: A filter, for example "modality = CT and age >= 40".
            min_similarity: Least cosine of a hit.
            own_patient: True lets the query's own patient be found.
            order: What counts as one hit, and how hits are ordered; with a series_method, all images are one series.
            thumbnails: Also fetch a small picture of each case and of the query.
            frame_number: Of each image, where it has several; counts from 1.
            facts: What is known of the image where the file is silent: the patient, so that their cases are left out.
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
            order.write(options)
            named = requests.named_examples(image, frame_number, case_id, series_uid, study_uid, facts)
            return self._searched([example.message() for example in (*named, *examples)], options)

    def _searched(self, examples: list[search_pb2.Example], options: search_pb2.SearchOptions) -> SearchResult:
        size = sum(len(example.image) for example in examples)
        if len(examples) == 1 and size > UNARY_BYTES:
            answer = self._search.SearchStream(requests.search_stream(examples[0], options), timeout=self._timeout_s)
            return convert.result_from_proto(answer.response)
        requests.check_size(size, UNARY_BYTES)
        request = search_pb2.SearchRequest(examples=examples, options=options)
        return convert.result_from_proto(self._search.Search(request, timeout=self._timeout_s))

    def decide(
        self,
        image: Path | bytes | Sequence[Path | bytes | Example] | None = None,
        *,
        case_id: str = "",
        series_uid: str = "",
        study_uid: str = "",
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
        facts: CaseFacts = requests.NOTHING,
        near_duplicates: float | None = None,
    ) -> DecisionResult:
        """Returns what the labelled prior cases say of an image, of several as one, or of what the library holds.

        Args:
            image: A DICOM, NIfTI, PNG or JPEG file; or several of one series or study, at most 64.
            case_id: A case of the library, in place of an image.
            series_uid: A series of the library, whose mean embedding is decided about.
            study_uid: A study of the library, likewise.
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
            facts: What is known of the image where the file is silent: patient, whose cases are left out, age, sex.
            near_duplicates: Images at or above this cosine to the query, 0.9 to 1, are left out, and no call is made.
        """
        with self._errors():
            request = requests.decide_request(image, case_id, series_uid, study_uid, frame_number, facts)
            request.options.finding, request.options.k, request.options.filter = finding, k, where
            request.options.MergeFrom(
                decision_pb2.DecideOptions(
                    operating_point=requests.choice(operating_point, sensitivity, specificity, cost_ratio),
                    prevalence=prevalence,
                    case_mask=ALL_FIELDS if thumbnails else None,
                    near_duplicate_similarity=near_duplicates,
                )
            )
            response = self._decided(request)
        return convert.decisions_from_proto(response)

    def _decided(self, request: decision_pb2.DecideRequest) -> decision_pb2.DecideResponse:
        if len(request.image) > UNARY_BYTES:
            return self._decide.DecideStream(requests.decide_stream(request), timeout=self._timeout_s).response
        requests.check_size(sum(len(each.image) for each in request.files.images), UNARY_BYTES)
        return self._decide.Decide(request, timeout=self._timeout_s)

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
            for response in self._library.AddImages(requests.add_requests(items, unreadable, self._received)):
                yield requests.add_result(response)
        yield from unreadable

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
        named = {"case_id": case_id, "instance_uid": instance_uid, "series_uid": series_uid, "study_uid": study_uid}
        named |= {"patient_id": patient_id, "patient_id_issuer": patient_id_issuer}
        return self.library.erase(**named)[0]  # type: ignore[arg-type]  # mypy asks every parameter to be text

    def statistics(self) -> LibraryStatistics:
        """Returns what the library holds."""
        with self._errors():
            answer = self._library.GetStatistics(library_pb2.GetStatisticsRequest(), timeout=self._timeout_s)
        counts = {entry.field: dict(entry.counts) for entry in answer.field_counts}
        encoder = convert.encoder_from_proto(answer.encoder)
        return LibraryStatistics(
            case_count=answer.case_count,
            patient_count=answer.patient_count,
            size_bytes=answer.size_bytes,
            field_counts=counts,
            encoder=encoder,
            tier=answer.index.tier,
            damaged_parts=tuple(answer.index.damaged),
            is_building=answer.index.building,
            recall=convert.recall_from_proto(answer.index.recall) if answer.index.HasField("recall") else None,
        )

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

    def embed_texts(self, texts: Sequence[str]) -> list[tuple[float, ...] | NearcaseError]:
        """Returns the embedding of each text, or why it has none; at most 256, for an encoder with a text tower."""
        with self._errors():
            request = encoder_pb2.EmbedTextsRequest(texts=texts)
            answer = self._encoder.EmbedTexts(request, timeout=self._timeout_s)
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
            raise requests.unwritable(error) from None

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
        if code is grpc.StatusCode.UNAUTHENTICATED:
            return NotAllowed(f"{self.address} does not know who asks: {message}", reason=code.name)
        return BY_CODE.get(code.name, NearcaseError)(message, reason=str(reason) if reason else None)

    def _absent(self) -> Unready:
        hint = f"no nearcase server answers at {self.address}; start one with: nearcase serve, or if it encrypts, give "
        hint += "--tls-ca (and --tls-cert, --tls-key)"
        return Unready(hint, reason="NO_SERVER")
