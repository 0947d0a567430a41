"""The life of a case after it was added: corrected, given to another patient, erased."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from nearcase.errors import InvalidInput
from nearcase.index.filters import Equals, Filter, In
from nearcase.index.points import check_ids
from nearcase.serve.annotations import check_text, read_correction
from nearcase.serve.caller import current
from nearcase.serve.housekeeping import erase_older
from nearcase.serve.notes import notes
from nearcase.v1 import library_pb2

if TYPE_CHECKING:
    from nearcase.serve.engine import Engine
    from nearcase.types import Case, Erasure

MAX_PAGE = 1000
_TARGETS = {"case_id": "case", "instance_uid": "instance", "series_uid": "series", "study_uid": "study"}
_OFFSET = re.compile(r"[0-9]{1,9}")


def case_key(engine: Engine, request: library_pb2.GetCaseRequest | library_pb2.UpdateCaseRequest) -> str | Filter:
    """Returns the id of the case that a request names, or the filter that finds it.

    Raises:
        InvalidInput: It names none.
    """
    kind = request.WhichOneof("key")
    if kind is None:
        raise InvalidInput("expected case_id or instance_uid", field="key")
    if kind == "case_id":
        return request.case_id
    return engine.privacy.where(Equals("instance_uid", request.instance_uid))


async def update_cases(engine: Engine, request: library_pb2.UpdateCaseRequest) -> list[Case]:
    """Returns the cases that a request names as they are after its correction: all frames of an instance."""
    correction = read_correction(request, current().name)
    return await engine.library.update(case_key(engine, request), correction)


async def merge_patients(engine: Engine, request: library_pb2.MergePatientsRequest) -> int:
    """Returns how many cases changed hands."""
    gone, stays = getattr(request, "from"), request.into
    for key, name in ((gone, "from"), (stays, "into")):
        if not key.patient_id:
            raise InvalidInput("expected the patient ids of two patients", field=name)
    if gone == stays:
        raise InvalidInput("expected two patients to merge, got one", field="into")
    for key in (gone, stays):
        _asked_patient(engine, key)
    changed_by = current().name or request.changed_by
    check_text(changed_by, "changed_by")
    patient = engine.privacy.patient
    return await engine.library.merge(
        patient(gone.patient_id, gone.patient_id_issuer), patient(stays.patient_id, stays.patient_id_issuer), changed_by
    )


async def erase_cases(engine: Engine, request: library_pb2.EraseCasesRequest) -> list[Erasure]:
    """Returns the certificates of what a request had erased; none where nothing matched.

    Raises:
        InvalidInput: Nothing is named.
        Unready: It could not be done, or not be proven.
    """
    done = await _erase(engine, request)
    notes().count = sum(each.case_count for each in done)
    notes().detail = " ".join(["erased", *(each.erasure_id for each in done)])
    return done


async def _erase(engine: Engine, request: library_pb2.EraseCasesRequest) -> list[Erasure]:
    kind = request.WhichOneof("target")
    if kind == "older_than_days":
        notes().target = "retention"
        return await erase_older(engine.tenants.here(), engine.clock, request.older_than_days)
    if kind == "patient" and request.patient.patient_id:
        _asked_patient(engine, request.patient)
        notes().target = kind
        where = engine.privacy.patient(request.patient.patient_id, request.patient.patient_id_issuer)
        done = await engine.erasures.erase(where, "patient")
        return [done] if done else []
    if kind not in _TARGETS or not getattr(request, kind):
        message = "expected what to erase: case_id, instance_uid, series_uid, study_uid, patient or older_than_days"
        raise InvalidInput(message, field="target")
    if kind == "case_id":
        check_ids([request.case_id])
    where = engine.privacy.where(Equals(kind, getattr(request, kind)))
    for value in where.values if isinstance(where, In) else [getattr(request, kind)]:
        notes().asked(_TARGETS[kind], str(value))
    notes().target = _TARGETS[kind]
    done = await engine.erasures.erase(where, _TARGETS[kind])
    return [done] if done else []


def _asked_patient(engine: Engine, key: library_pb2.PatientKey) -> None:
    """Notes the id as it was given and as the library has it: which of the two was given is not known."""
    for name in engine.privacy.patient_keys(key.patient_id, key.patient_id_issuer):
        notes().asked("patient", name)


def page_of_erasures(every: Sequence[Erasure], page_size: int, page_token: str) -> tuple[Sequence[Erasure], str]:
    """Returns one page and the token of the next; a token counts from the oldest, so that new ones shift no page.

    Raises:
        InvalidInput: The size is negative, or the token is not of an answer.
    """
    if page_size < 0:
        raise InvalidInput(f"expected page_size from 0, got {page_size}", field="page_size")
    if page_token and not _OFFSET.fullmatch(page_token):
        raise InvalidInput("expected a page_token that an answer gave, got other text", field="page_token")
    start = len(every) - min(int(page_token), len(every)) if page_token else 0
    end = start + min(page_size or 100, MAX_PAGE)
    return every[start:end], str(len(every) - end) if end < len(every) else ""


def erasure_to_proto(erasure: Erasure) -> library_pb2.Erasure:
    """Field by field."""
    message = library_pb2.Erasure(
        erasure_id=erasure.erasure_id,
        target=erasure.target,
        case_count=erasure.case_count,
        record_count=erasure.record_count,
        rewritten=erasure.is_rewritten,
        found_again_count=erasure.found_again_count,
    )
    message.erase_time.FromMicroseconds(round(erasure.erased_at_s * 1e6))
    return message
