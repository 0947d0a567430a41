"""Case <-> what the index stores of it."""

from __future__ import annotations

import base64
import dataclasses
import json
import uuid
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from nearcase.index.base import JsonValue, Payload
from nearcase.index.filters import Filter, In, Not, Or
from nearcase.types import Case, CaseFacts, LabelChange

_NAMESPACE = uuid.UUID("6f1a3c52-3c1e-5b7e-9a55-6e6561726361")
_FACTS = dict.fromkeys(field.name for field in dataclasses.fields(CaseFacts))  # a set in order
THUMBNAIL = "thumbnail_jpeg"
CHANGED = "changed_at_s"

FLAGS = ("excluded", "no-consent")
"""A case with one of these is kept, and is never found nor evidence."""


def case_id_of(
    facts: CaseFacts, content_sha256: str, frame_number: int, tenant: str = "", *, is_series: bool = False
) -> str:
    """Returns the one id that this image always gets: from its SOP Instance UID, else from its bytes.

    The same image of two tenants is two cases: the tenant is part of the name, and no UID or hash has a blank in it.
    A case that is a whole series has the id of its Series Instance UID, whichever of its files came.
    """
    own = f"series:{facts.series_uid}" if is_series and facts.series_uid else facts.instance_uid
    name = own or f"sha256:{content_sha256}"
    return str(uuid.uuid5(_NAMESPACE, f"{tenant} {name}#{frame_number}" if tenant else f"{name}#{frame_number}"))


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
        "flags": sorted(case.flags),
        "history": _history_text(case.history),
        THUMBNAIL: base64.b64encode(case.thumbnail_jpeg).decode("ascii"),
    }
    return {key: value for key, value in payload.items() if value not in ("", None, [])}


def stamped(payload: Payload, now_s: float) -> Payload:
    """Returns a payload that tells when it was written; no part of the case, and not carried to another library.

    In whole microseconds: numbers of 17 digits come back from the engine's JSON off by their last bit now and then, and
    what was written last before a fit would count as written after it.
    """
    return {**payload, CHANGED: round(now_s, 6)}


def to_case(case_id: str, payload: Payload) -> Case:
    """The inverse of to_payload; a payload without its thumbnail gives a case without one."""
    stated: dict[str, Any] = {name: value for name, value in payload.items() if name in _FACTS}
    if "study_date" in stated:
        stated["study_date"] = str(stated["study_date"]).zfill(8)  # kept as a number: the year 1 begins with zeros
    facts = CaseFacts(**stated)
    labels = payload.get("labels", [])
    pairs = (label.partition("=") for label in labels) if isinstance(labels, list) else ()
    return Case(
        case_id=case_id,
        facts=facts,
        labels={name: value for name, _, value in pairs},
        source=str(payload.get("source", "")),
        given=tuple(str(payload["given"]).split(",")) if payload.get("given") else (),
        frame_number=int(str(payload.get("frame_number", 1))),
        frame_count=int(str(payload.get("frame_count", 1))),
        content_sha256=str(payload.get("content_sha256", "")),
        added_at_s=float(str(payload.get("added_at_s", 0.0))),
        thumbnail_jpeg=base64.b64decode(str(payload[THUMBNAIL])) if THUMBNAIL in payload else b"",
        flags=_texts(payload.get("flags")),
        history=_history(str(payload.get("history", ""))),
    )


def other_origin(cases: Sequence[Case], *, with_patient: bool, patients: Iterable[str] = ()) -> Filter | None:
    """Returns a filter that leaves out the cases' own images: study, series, copies of files, patient if asked.

    Args:
        cases: Whose images are left out.
        with_patient: Leave out their patients too.
        patients: Keys that those patients have besides.
    """
    every = [(case.facts, case.content_sha256) for case in cases]
    own = {patient_key(facts.patient_id, facts.patient_id_issuer) for facts, _ in every}
    keys, ids = _of_any_issuer(own.union(patients) if with_patient else ())
    parts = {
        "patient_key": keys,
        "patient_id": ids,
        "study_uid": {facts.study_uid for facts, _ in every},
        "series_uid": {facts.series_uid for facts, _ in every},
        "instance_uid": {facts.instance_uid for facts, _ in every},
        "content_sha256": {sha256 for _, sha256 in every},
    }
    stated = tuple(In(field, tuple(sorted(values - {""}))) for field, values in parts.items() if values - {""})
    return Not(Or(stated)) if stated else None


def _of_any_issuer(keys: Collection[str]) -> tuple[set[str], set[str]]:
    """Returns the keys and the ids that may be those patients': an id without its issuer may be that of any issuer."""
    stated = {key for key in keys if key and not key.startswith("|")}
    without = {key[at:] for key in stated for at, letter in enumerate(key) if letter == "|"}  # a bar may be in either
    return stated | without, {key[1:] for key in keys if key.startswith("|")}


def _texts(value: JsonValue) -> tuple[str, ...]:
    return tuple(value) if isinstance(value, list) else ()


def _history_text(history: tuple[LabelChange, ...]) -> str:
    """A list of lists, in the order of the fields of LabelChange: one text, since no engine stores nested lists."""
    return json.dumps([dataclasses.astuple(change) for change in history], ensure_ascii=False) if history else ""


def _history(text: str) -> tuple[LabelChange, ...]:
    return tuple(LabelChange(*row) for row in json.loads(text)) if text else ()
