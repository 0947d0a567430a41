"""Records as DICOM audit messages: PS3.15 A.5, in the schema of A.5.1.1; codes are of PS3.16 CID 400 to 403.

Objects are the keyed names of the trail: who reads the collector can count and compare them, and not read them. Each
message names the record that it tells of by number and SHA-256, so that a collector is a witness against who rewrites
the trail. A record of many cases becomes several messages, since collectors need not take more than 32768 octets (A.6).
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from xml.etree.ElementTree import Element, SubElement, tostring

from nearcase.audit.event import BEGIN, CALL, DAMAGED, ERASED, FULL, REFUSED, RESUMED, START, STOP, AuditEvent
from nearcase.audit.line import Kept

MOST_OBJECTS = 60
"""Of one message: 20 kB."""

OURS = "99NEARCASE"
"""Codes that no standard has."""

_UNFIT = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What no XML document may hold (XML 1.0, 2.2); a record that is forged may."""

Code = tuple[str, str, str]  # code, system, meaning
_PATIENT: Code = ("2", "RFC-3881", "Patient Number")
_QUERY_ID: Code = ("10", "RFC-3881", "Search Criteria")
_CASE: Code = ("case", OURS, "keyed name of a case")
_RECORD: Code = ("record", OURS, "number and SHA-256 of a record of the audit trail")
_APPLICATION: Code = ("110150", "DCM", "Application")
_DESTINATION: Code = ("110152", "DCM", "Destination Role ID")
_SOURCE: Code = ("110153", "DCM", "Source Role ID")


@dataclass(frozen=True, slots=True)
class _Kind:
    """What a message says of an event."""

    code: Code
    action: str  # C, R, U, D or E
    type_code: Code | None = None
    outcome: str = "0"  # 4 and 8 are failures, 12 makes the application unavailable
    asker_role: Code | None = None
    own_role: Code = _APPLICATION


_QUERY = _Kind(("110112", "DCM", "Query"), "E")
_ACCESSED: Code = ("110103", "DCM", "DICOM Instances Accessed")
_READ, _UPDATED, _DELETED = (_Kind(_ACCESSED, action) for action in "RUD")
_PATIENT_RECORD: Code = ("110110", "DCM", "Patient Record")
_PATIENT_DELETED = _Kind(_PATIENT_RECORD, "D")
_STUDY_DELETED = _Kind(("110105", "DCM", "DICOM Study Deleted"), "D")
_IMPORT = _Kind(("110107", "DCM", "Import"), "C", None, "0", _SOURCE, _DESTINATION)
_EXPORT = _Kind(("110106", "DCM", "Export"), "R", None, "0", _DESTINATION, _SOURCE)
_ACTIVITY: Code = ("110100", "DCM", "Application Activity")
_ALERT: Code = ("110113", "DCM", "Security Alert")
_LOGIN = _Kind(("110114", "DCM", "User Authentication"), "E", ("110122", "DCM", "Login"), "4")
_RESTRICTED = _Kind(_ALERT, "E", ("110132", "DCM", "Use of Restricted Function"), "4")

_OF_CALLS: dict[str, tuple[_Kind, ...]] = {
    "Search": (_QUERY, _READ),
    "SearchStream": (_QUERY, _READ),
    "Decide": (_QUERY, _READ),
    "DecideStream": (_QUERY, _READ),
    "GetCase": (_READ,),
    "ListCases": (_QUERY, _READ),
    "GetRecord": (_READ,),
    "UpdateCase": (_UPDATED,),
    "MergePatients": (_Kind(_PATIENT_RECORD, "U"),),
    "AddImages": (_IMPORT,),
    "ImportCases": (_IMPORT,),
    "ExportCases": (_EXPORT,),
}
"""Calls that are not here show nothing of a patient, and have no message."""

_OF_KINDS = {
    START: _Kind(_ACTIVITY, "E", ("110120", "DCM", "Application Start")),
    STOP: _Kind(_ACTIVITY, "E", ("110121", "DCM", "Application Stop")),
    FULL: _Kind(_ALERT, "E", ("110133", "DCM", "Audit Recording Stopped"), "12"),
    RESUMED: _Kind(_ALERT, "E", ("110134", "DCM", "Audit Recording Started")),
    DAMAGED: _Kind(_ALERT, "E", ("trail-damaged", OURS, "records of the audit trail are missing or changed"), "8"),
    ERASED: _DELETED,
}
_ERASURES = {"patient": _PATIENT_DELETED, "study": _STUDY_DELETED}


def messages_of(kept: Kept, source: str) -> list[bytes]:
    """Returns the messages that a record makes, each an XML document in UTF-8; none where none is defined for it.

    Args:
        kept: The record.
        source: Which server says so: its host name.
    """
    return [
        _message(kept, kind, source, patients, cases)
        for kind in _kinds(kept.event)
        for patients, cases in _parts(kept.event, kind)
    ]


def _kinds(event: AuditEvent) -> tuple[_Kind, ...]:
    if event.kind == REFUSED:
        return {"UNAUTHENTICATED": (_LOGIN,), "PERMISSION_DENIED": (_RESTRICTED,)}.get(event.code, ())
    if event.kind != CALL:
        return (_OF_KINDS[event.kind],) if event.kind in _OF_KINDS else ()
    if event.phase == BEGIN:  # what became of it has a message of its own
        return ()
    name = event.rpc.rpartition("/")[2]
    if name == "EraseCases":
        return (_ERASURES.get(event.target, _DELETED),)
    kinds = _OF_CALLS.get(name, ())
    return kinds if event.cases or event.code != "OK" or len(kinds) == 1 else kinds[:1]  # nothing was found


def _parts(event: AuditEvent, kind: _Kind) -> list[tuple[Sequence[str], Sequence[str]]]:
    """A query tells of what was asked about; the rest of who was found, or was named to be changed."""
    if kind is _QUERY:
        return [((), ())]
    every = [(True, name) for name in event.patients] + [(False, name) for name in event.cases]
    if not every:
        every = [(kind.code == _PATIENT_RECORD, name) for name in event.about]
    pages = [every[start : start + MOST_OBJECTS] for start in range(0, len(every), MOST_OBJECTS)] or [[]]
    return [
        ([name for is_patient, name in page if is_patient], [name for is_patient, name in page if not is_patient])
        for page in pages
    ]


def _message(kept: Kept, kind: _Kind, source: str, patients: Sequence[str], cases: Sequence[str]) -> bytes:
    event, root = kept.event, Element("AuditMessage")
    _identify(root, event, kind)
    if event.kind in (CALL, REFUSED):
        _participant(root, event.caller or "unknown", event, kind.asker_role)
    own = SubElement(root, "ActiveParticipant", UserID="nearcase", UserIsRequestor="false", NetworkAccessPointID=source)
    own.set("NetworkAccessPointTypeCode", "1")
    _coded(own, "RoleIDCode", kind.own_role)
    origin = SubElement(root, "AuditSourceIdentification", AuditSourceID=f"nearcase@{source}")
    SubElement(origin, "AuditSourceTypeCode", {"csd-code": "4"})
    for name in patients:
        _object(root, name, "1", "1", _PATIENT)
    for name in cases:
        _object(root, name, "2", "4", _CASE)
    if kind is _QUERY:
        _query(root, event)
    _object(root, f"{kept.seq}:{kept.sha256}", "2", "13", _RECORD)
    text = _UNFIT.sub("\ufffd", tostring(root, encoding="unicode"))
    one_line = text.replace("\r", "&#13;").replace("\n", "&#10;")
    return f"<?xml version='1.0' encoding='utf-8'?> {one_line}".encode()


def _identify(root: Element, event: AuditEvent, kind: _Kind) -> None:
    is_failure = event.kind == CALL and event.code != "OK"
    part = SubElement(
        root,
        "EventIdentification",
        EventActionCode=kind.action,
        EventDateTime=datetime.fromtimestamp(event.at_s, UTC).isoformat(timespec="milliseconds"),
        EventOutcomeIndicator="4" if is_failure else kind.outcome,
    )
    _coded(part, "EventID", kind.code)
    if kind.type_code:
        _coded(part, "EventTypeCode", kind.type_code)
    words = [event.code, event.reason] if is_failure or event.kind == REFUSED else [event.detail]
    says = " ".join(word for word in words if word)
    if says:
        SubElement(part, "EventOutcomeDescription").text = says


def _participant(root: Element, name: str, event: AuditEvent, role: Code | None) -> None:
    part = SubElement(root, "ActiveParticipant", UserID=name, UserIsRequestor="true")
    if event.tenant:
        part.set("AlternativeUserID", event.tenant)
    if event.peer:
        part.set("NetworkAccessPointID", event.peer)
    if role:
        _coded(part, "RoleIDCode", role)


def _query(root: Element, event: AuditEvent) -> None:
    """What was asked, and what was said: the call of each finding at its operating point."""
    part = SubElement(root, "ParticipantObjectIdentification", ParticipantObjectID=event.request_id)
    part.set("ParticipantObjectTypeCode", "2")
    part.set("ParticipantObjectTypeCodeRole", "24")
    _coded(part, "ParticipantObjectIDTypeCode", _QUERY_ID)
    SubElement(part, "ParticipantObjectQuery").text = _base64(json.dumps({"rpc": event.rpc, "about": event.about}))
    details = {"encoder": event.encoder, "library": event.library, "found": str(event.count)}
    for said in event.decisions:
        details[f"finding {said.finding}"] = f"{said.call} {said.reason or said.operating_point} {said.record_id}"
    for name, value in details.items():
        if value:
            SubElement(part, "ParticipantObjectDetail", type=name, value=_base64(value))


def _object(root: Element, name: str, kind: str, role: str, code: Code) -> None:
    part = SubElement(root, "ParticipantObjectIdentification", ParticipantObjectID=name)
    part.set("ParticipantObjectTypeCode", kind)
    part.set("ParticipantObjectTypeCodeRole", role)
    _coded(part, "ParticipantObjectIDTypeCode", code)
    SubElement(part, "ParticipantObjectName").text = name


def _coded(root: Element, name: str, code: Code) -> None:
    SubElement(root, name, {"csd-code": code[0], "codeSystemName": code[1], "originalText": code[2]})


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
