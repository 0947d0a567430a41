"""The part of the typed client that corrects and erases cases: `client.library`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager

from nearcase import convert
from nearcase.errors import InvalidInput
from nearcase.types import Case, Erasure, RecallReport
from nearcase.v1 import library_pb2, library_pb2_grpc

PAGE = 1000


class LibraryClient:
    """Made by `Client`; raises what its methods raise.

    Args:
        stub: Of the open connection.
        errors: Turns grpc's errors into ours.
        timeout_s: For each call but erasing, which may rewrite large files.
    """

    def __init__(
        self,
        stub: library_pb2_grpc.LibraryServiceStub,
        errors: Callable[[], AbstractContextManager[None]],
        timeout_s: float,
    ) -> None:
        self._stub, self._errors, self._timeout_s = stub, errors, timeout_s

    def update(
        self,
        *,
        case_id: str = "",
        instance_uid: str = "",
        labels: Mapping[str, str] | None = None,
        set_flags: Iterable[str] = (),
        clear_flags: Iterable[str] = (),
        changed_by: str = "",
    ) -> tuple[Case, int]:
        """Corrects one case, or all cases of an instance; the same call once more changes nothing.

        Returns the case as it is then, the first in the order of ids where there are several, and how many there are.

        Args:
            case_id: Which case, or give instance_uid.
            instance_uid: A SOP Instance UID: all frames that the library has of it.
            labels: Labels to set; an empty value removes the label. What they were stands in the case's history.
            set_flags: "excluded" or "no-consent": kept, and never found nor evidence.
            clear_flags: Flags to take away.
            changed_by: Who says so.
        """
        with self._errors():
            request = library_pb2.UpdateCaseRequest(
                labels=labels or {}, set_flags=set_flags, clear_flags=clear_flags, changed_by=changed_by
            )
            if case_id:
                request.case_id = case_id
            elif instance_uid:
                request.instance_uid = instance_uid
            answer = self._stub.UpdateCase(request, timeout=self._timeout_s)
            return convert.case_from_proto(answer.case), answer.case_count

    def merge(
        self,
        gone: str,
        stays: str,
        *,
        gone_issuer: str = "",
        stays_issuer: str = "",
        changed_by: str = "",
    ) -> int:
        """Gives all cases of one patient id to another and returns how many changed hands.

        Args:
            gone: The Patient ID that goes.
            stays: The Patient ID that stays.
            gone_issuer: Issuer of the first; "" is "none stated".
            stays_issuer: Issuer of the second.
            changed_by: Who says so.
        """
        with self._errors():
            request = library_pb2.MergePatientsRequest(
                into=library_pb2.PatientKey(patient_id=stays, patient_id_issuer=stays_issuer), changed_by=changed_by
            )
            # "from" is a word of Python's and no attribute.
            getattr(request, "from").CopyFrom(library_pb2.PatientKey(patient_id=gone, patient_id_issuer=gone_issuer))
            return self._stub.MergePatients(request).changed_count

    def erase(
        self,
        *,
        case_id: str = "",
        instance_uid: str = "",
        series_uid: str = "",
        study_uid: str = "",
        patient_id: str = "",
        patient_id_issuer: str = "",
        older_than_days: float = 0.0,
    ) -> tuple[int, Erasure | None]:
        """Removes all cases of one image, series, study or patient, or of more than some days ago; name exactly one.

        Returns how many cases that was, and the certificate; None where there were none. It waits until the files are
        rewritten.
        """
        named = {"case_id": case_id, "instance_uid": instance_uid, "series_uid": series_uid, "study_uid": study_uid}
        targets: dict[str, str | float] = {key: value for key, value in named.items() if value}
        if older_than_days:
            targets["older_than_days"] = older_than_days
        if len(targets) + bool(patient_id) != 1:
            raise InvalidInput("name exactly one thing to erase: an image, a series, a study, a patient or an age")
        with self._errors():
            request = library_pb2.EraseCasesRequest(**targets)  # type: ignore[arg-type]  # each has its field's type
            if patient_id:
                request.patient.patient_id, request.patient.patient_id_issuer = patient_id, patient_id_issuer
            answer = self._stub.EraseCases(request)
        certificate = erasure_from_proto(answer.certificate) if answer.HasField("certificate") else None
        return answer.erased_count, certificate

    def check_recall(self, *, samples: int = 50, k: int = 10) -> RecallReport:
        """Returns how many of the exact neighbours searches find, now.

        Args:
            samples: Stored cases to search with, 10 to 1000.
            k: Neighbours to compare, 1 to 100.
        """
        with self._errors():
            request = library_pb2.CheckRecallRequest(sample_count=samples, k=k)
            return convert.recall_from_proto(self._stub.CheckRecall(request))

    def erasures(self) -> Iterator[Erasure]:
        """Yields the certificates of what was erased, newest first."""
        request = library_pb2.ListErasuresRequest(page_size=PAGE)
        while True:
            with self._errors():
                page = self._stub.ListErasures(request, timeout=self._timeout_s)
            yield from map(erasure_from_proto, page.erasures)
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token


def erasure_from_proto(message: library_pb2.Erasure) -> Erasure:
    """Field by field."""
    return Erasure(
        erasure_id=message.erasure_id,
        erased_at_s=message.erase_time.ToMicroseconds() / 1e6,
        target=message.target,
        case_count=message.case_count,
        record_count=message.record_count,
        is_rewritten=message.rewritten,
        found_again_count=message.found_again_count,
    )
