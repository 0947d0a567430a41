"""DecideRequest -> Inquiry: what a record keeps of how it was asked."""

from __future__ import annotations

from nearcase.decide.inquiry import CASE, FILE, FILES, SERIES, STUDY, Inquiry
from nearcase.index.filters import And, Equals, Filter, In, Not, Or, Range, Scalar
from nearcase.intake.deidentify import VIEWS
from nearcase.retrieve.agreement import stated_names
from nearcase.retrieve.cases import FLAGS
from nearcase.serve.annotations import read_facts
from nearcase.serve.deciding import Question
from nearcase.v1.decision_pb2 import DecideRequest

_SOURCES = {
    "image": FILE,
    "files": FILES,
    "case_id": CASE,
    "instance_uid": CASE,
    "series_uid": SERIES,
    "study_uid": STUDY,
}
_TERMS = (
    "AR ASMT AU BDUS BI BMD CFM CR CT CTPROTOCOL DG DMS DOC DX ECG EEG EMG EOG EPS ES FID GM HC HD IO IVOCT IVUS KER "
    "KO LEN LP LS M3D MG MR NM OAM OCT OP OPM OPT OPTBSV OPTENF OPV OSS OT PA PLAN POS PR PT PX REG RESP RF RG RTDOSE "
    "RTIMAGE RTINTENT RTPLAN RTRAD RTRECORD RTSEGANN RTSTRUCT RWV SEG SM SMR SR SRF STAIN TEXTUREMAP TG US VA XA "
    "XAPROTOCOL XC"
)
"""Defined terms of Modality (PS3.3 C.7.3.1.1.1)."""

_CLOSED: dict[str, frozenset[str]] = {
    "modality": frozenset(_TERMS.split()),
    "laterality": frozenset("LRUB"),
    "view": VIEWS,
    "sex": frozenset("MFO"),
    "flags": frozenset(FLAGS),
}
"""Words that many people share, by field. Whatever else is asked for is free text, in which anybody may be named: also
a sex or a modality that is none, and every value of a field that is not here or is declared later."""

_NUMBERS = frozenset({"age_years"})
"""Fields of numbers that many people share; a date is none of them."""


def inquiry_of(request: DecideRequest, question: Question, where: Filter | None) -> Inquiry:
    """Returns how it was asked for.

    Args:
        request: As it came; it names a source.
        question: What it asks.
        where: Its filter.

    Raises:
        InvalidInput: A fact is malformed.
    """
    is_kept = where is None or _names_nobody(where)
    return Inquiry(
        source=_SOURCES[request.WhichOneof("source") or "image"],
        frames=_frames(request),
        choice=question.choice,
        k=question.k,
        is_one_of_many=not question.finding,
        where=request.options.filter.strip() if is_kept else "",
        is_where_kept=is_kept,
        near_duplicate_similarity=question.near_duplicate_similarity,
        facts=stated_names(read_facts(request.facts)),
    )


def _names_nobody(where: Filter) -> bool:
    match where:
        case And(parts) | Or(parts):
            return all(_names_nobody(part) for part in parts)
        case Not(part):
            return _names_nobody(part)
        case Equals(field, value):
            return _is_shared(field, value)
        case In(field, values):
            return all(_is_shared(field, value) for value in values)
        case Range(field):
            return field in _NUMBERS


def _is_shared(field: str, value: Scalar) -> bool:
    return field in _NUMBERS or value in _CLOSED.get(field, frozenset())


def _frames(request: DecideRequest) -> tuple[int, ...]:
    """An unset frame number reads as 0."""
    source = request.WhichOneof("source")
    if source == "files":
        return tuple(each.frame_number for each in request.files.images)
    return (request.frame_number,) if source == "image" else ()
