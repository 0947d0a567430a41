"""Case <-> what the index stores of it."""

from __future__ import annotations

import base64
import dataclasses
import uuid

from nearcase.index.base import JsonValue, Payload
from nearcase.index.filters import Equals, Filter, Not, Or
from nearcase.types import Case, CaseFacts

_NAMESPACE = uuid.UUID("6f1a3c52-3c1e-5b7e-9a55-6e6561726361")
_FACTS = tuple(field.name for field in dataclasses.fields(CaseFacts))
THUMBNAIL = "thumbnail_jpeg"


def case_id_of(facts: CaseFacts, content_sha256: str, frame_number: int) -> str:
    """Returns the one id that this image always gets: from its SOP Instance UID, else from its bytes."""
    name = facts.instance_uid or f"sha256:{content_sha256}"
    return str(uuid.uuid5(_NAMESPACE, f"{name}#{frame_number}"))


def patient_key(patient_id: str, issuer: str) -> str:
    """Returns what identifies a patient: an id means nothing without its issuer (PS3.3 C.2.2); "" without an id."""
    return f"{issuer}|{patient_id}" if patient_id else ""


def to_payload(case: Case) -> Payload:
    """Returns the case for storing; what is not stated is left out, so that no filter matches it."""
    facts = {name: getattr(case.facts, name) for name in _FACTS}
    payload: dict[str, JsonValue] = facts | {
        "case_id": case.case_id,
        "study_date": int(case.facts.study_date) if case.facts.study_date.isdecimal() else None,
        "patient_key": patient_key(case.facts.patient_id, case.facts.patient_id_issuer),
        "labels": [f"{name}={value}" for name, value in sorted(case.labels.items())],
        "label_names": sorted(case.labels),
        "source": case.source,
        "given": ",".join(case.given),
        "frame_number": case.frame_number,
        "frame_count": case.frame_count,
        "content_sha256": case.content_sha256,
        "added_at_s": case.added_at_s,
        THUMBNAIL: base64.b64encode(case.thumbnail_jpeg).decode("ascii"),
    }
    return {key: value for key, value in payload.items() if value not in ("", None, [])}


def to_case(case_id: str, payload: Payload) -> Case:
    """The inverse of to_payload; a payload without its thumbnail gives a case without one."""
    stated = {name: payload[name] for name in _FACTS if name in payload}
    facts = CaseFacts(**stated | {"study_date": str(payload.get("study_date", ""))})  # type: ignore[arg-type]
    labels = payload.get("labels", [])
    pairs = (label.partition("=") for label in labels) if isinstance(labels, list) else ()
    return Case(
        case_id=case_id,
        facts=facts,
        labels={name: value for name, _, value in pairs},
        source=str(payload.get("source", "")),
        given=tuple(filter(None, str(payload.get("given", "")).split(","))),
        frame_number=int(str(payload.get("frame_number", 1))),
        frame_count=int(str(payload.get("frame_count", 1))),
        content_sha256=str(payload.get("content_sha256", "")),
        added_at_s=float(str(payload.get("added_at_s", 0.0))),
        thumbnail_jpeg=base64.b64decode(str(payload.get(THUMBNAIL, ""))),
    )


def other_origin(case: Case, *, with_patient: bool) -> Filter | None:
    """Returns a filter that leaves out the case's own images: study, series, copies of its file, patient if asked."""
    facts = case.facts
    parts = {
        "patient_key": patient_key(facts.patient_id, facts.patient_id_issuer) if with_patient else "",
        "study_uid": facts.study_uid,
        "series_uid": facts.series_uid,
        "instance_uid": facts.instance_uid,
        "content_sha256": case.content_sha256,
    }
    stated = tuple(Equals(field, value) for field, value in parts.items() if value)
    return Not(Or(stated)) if stated else None
