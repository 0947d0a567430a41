"""DecideRequest -> Inquiry: what a record keeps of how it was asked."""

from __future__ import annotations

from nearcase.decide.inquiry import CASE, FILE, FILES, SERIES, STUDY, Inquiry
from nearcase.index.filters import Filter, fields_of
from nearcase.retrieve.agreement import stated_names
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
_NAMELESS = frozenset(
    ["modality", "body_part", "laterality", "view", "sex", "age_years", "manufacturer", "device_model", "source"]
) | {"label_names", "flags"}
"""Fields whose values are of many people; any other, and one that is declared later, may lead to one. The values of
labels are free text, in which anything may be written."""


def inquiry_of(request: DecideRequest, question: Question, where: Filter | None) -> Inquiry:
    """Returns how it was asked for.

    Args:
        request: As it came; it names a source.
        question: What it asks.
        where: Its filter.

    Raises:
        InvalidInput: A fact is malformed.
    """
    is_kept = where is None or fields_of(where) <= _NAMELESS
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


def _frames(request: DecideRequest) -> tuple[int, ...]:
    """An unset frame number reads as 0."""
    source = request.WhichOneof("source")
    if source == "files":
        return tuple(each.frame_number for each in request.files.images)
    return (request.frame_number,) if source == "image" else ()
