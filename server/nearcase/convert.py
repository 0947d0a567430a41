"""proto <-> types, pure functions; used by the server and by the client, so nothing here needs numpy."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from google.protobuf.field_mask_pb2 import FieldMask

from nearcase import types
from nearcase.errors import InvalidInput
from nearcase.v1 import decision_pb2, library_pb2, search_pb2, types_pb2

_CALLS = {call: decision_pb2.Call.Value(f"CALL_{call.name}") for call in types.Call}
_SAID = {number: call for call, number in _CALLS.items()}
_CASE_FIELDS = frozenset(types_pb2.Case.DESCRIPTOR.fields_by_name)
_FACTS = tuple(field.name for field in dataclasses.fields(types.CaseFacts))  # once: asdict would copy each hit deeply


def facts_to_proto(facts: types.CaseFacts) -> types_pb2.CaseFacts:
    """Leaves unset what is not stated."""
    return types_pb2.CaseFacts(**_facts(facts))


def _facts(facts: types.CaseFacts) -> dict[str, Any]:
    return {name: value for name in _FACTS if (value := getattr(facts, name)) not in ("", None)}


def facts_from_proto(message: types_pb2.CaseFacts) -> types.CaseFacts:
    """The inverse of facts_to_proto."""
    return types.CaseFacts(**{field.name: value for field, value in message.ListFields()})


def check_case_mask(mask: FieldMask) -> frozenset[str]:
    """Returns the names of the Case fields to send; an empty mask is all but the thumbnail.

    Raises:
        InvalidInput: A path is not a field of Case; facts come whole, so a path into them is none.
    """
    paths = frozenset(mask.paths)
    unknown = sorted(paths - _CASE_FIELDS)
    if unknown:
        raise InvalidInput(
            f"case_mask names {unknown[0]!r}; a Case has {', '.join(sorted(_CASE_FIELDS))}", field="case_mask"
        )
    return paths or _CASE_FIELDS - {"thumbnail_jpeg"}


def case_to_proto(case: types.Case, names: frozenset[str]) -> types_pb2.Case:
    """Sends the named fields; the case id is always among them."""
    return types_pb2.Case(**_case(case, names))


def _case(case: types.Case, names: frozenset[str]) -> dict[str, Any]:
    """The fields of a message: given as they are, they are written once; a message would be copied into each around."""
    every: dict[str, Any] = {
        "facts": _facts(case.facts),
        "labels": dict(case.labels),
        "source": case.source,
        "frame_number": case.frame_number,
        "frame_count": case.frame_count,
        "content_sha256": case.content_sha256,
        "add_time": _time(case.added_at_s),
        "thumbnail_jpeg": case.thumbnail_jpeg,
        "flags": case.flags,
        "history": [_change(change) for change in case.history],
    }
    return {name: value for name, value in every.items() if name in names} | {"case_id": case.case_id}


def _change(change: types.LabelChange) -> dict[str, Any]:
    said = {"name": change.name, "old_value": change.old, "new_value": change.new, "changed_by": change.changed_by}
    return said | {"change_time": _time(change.changed_at_s)}


def _time(at_s: float) -> dict[str, int]:
    seconds, micros = divmod(round(at_s * 1e6), 1_000_000)
    return {"seconds": seconds, "nanos": micros * 1000}


def case_from_proto(message: types_pb2.Case) -> types.Case:
    """Fields that were not sent get their empty values."""
    return types.Case(
        case_id=message.case_id,
        facts=facts_from_proto(message.facts),
        labels=dict(message.labels),
        source=message.source,
        frame_number=message.frame_number,
        frame_count=message.frame_count,
        content_sha256=message.content_sha256,
        added_at_s=message.add_time.ToMicroseconds() / 1e6,
        thumbnail_jpeg=message.thumbnail_jpeg,
        flags=tuple(message.flags),
        history=tuple(
            types.LabelChange(
                row.name, row.old_value, row.new_value, row.change_time.ToMicroseconds() / 1e6, row.changed_by
            )
            for row in message.history
        ),
    )


def _hit(hit: types.Hit, names: frozenset[str]) -> dict[str, Any]:
    """The score and the matched instance only where a hit has its own."""
    like = {"similarity": hit.similarity, "score": hit.score, "matched_count": hit.matched_count}
    return like | {"matched_instance_uid": hit.matched_instance_uid or None, "case": _case(hit.case, names)}


def hits_from_proto(messages: Iterable[types_pb2.Hit]) -> tuple[types.Hit, ...]:
    """In the same order."""
    return tuple(hit_from_proto(message) for message in messages)


def hit_from_proto(message: types_pb2.Hit) -> types.Hit:
    """What came of `_hit`."""
    return types.Hit(
        case_from_proto(message.case),
        message.similarity,
        message.matched_count,
        message.score if message.HasField("score") else None,
        message.matched_instance_uid,
    )


def query_image_to_proto(image: types.QueryImage, names: frozenset[str]) -> types_pb2.QueryImage:
    """Sends the thumbnail only where the mask names it."""
    return types_pb2.QueryImage(
        facts=facts_to_proto(image.facts),
        frame_number=image.frame_number,
        frame_count=image.frame_count,
        rules=image.rules,
        thumbnail_jpeg=image.thumbnail_jpeg if "thumbnail_jpeg" in names else b"",
        image_count=image.image_count,
    )


def query_image_from_proto(message: types_pb2.QueryImage) -> types.QueryImage:
    """The inverse of query_image_to_proto."""
    return types.QueryImage(
        facts_from_proto(message.facts),
        message.frame_number,
        message.frame_count,
        tuple(message.rules),
        message.thumbnail_jpeg,
        message.image_count,
    )


def encoder_to_proto(summary: types.EncoderSummary) -> types_pb2.EncoderSummary:
    """Field by field."""
    return types_pb2.EncoderSummary(
        name=summary.name,
        version=summary.version,
        sha256=summary.sha256,
        dimension=summary.dimension,
        recipe=summary.recipe,
        medical=summary.is_medical,
        statement=summary.statement,
        runtime=summary.runtime,
    )


def encoder_from_proto(message: types_pb2.EncoderSummary) -> types.EncoderSummary:
    """The inverse of encoder_to_proto."""
    return types.EncoderSummary(
        name=message.name,
        version=message.version,
        sha256=message.sha256,
        dimension=message.dimension,
        recipe=message.recipe,
        is_medical=message.medical,
        statement=message.statement,
        runtime=message.runtime,
    )


def recall_to_proto(report: types.RecallReport) -> library_pb2.CheckRecallResponse:
    """Row by row."""
    message = library_pb2.CheckRecallResponse(k=report.k, exact=report.is_exact)
    message.check_time.FromMicroseconds(round(report.checked_at_s * 1e6))
    for row in report.rows:
        message.rows.add(
            filter=row.where, candidate_count=row.candidate_count, recall=row.recall, sample_count=row.sample_count
        )
    return message


def recall_from_proto(message: library_pb2.CheckRecallResponse) -> types.RecallReport:
    """The inverse of recall_to_proto."""
    rows = tuple(types.RecallRow(row.filter, row.candidate_count, row.recall, row.sample_count) for row in message.rows)
    return types.RecallReport(rows, message.k, message.check_time.ToMicroseconds() / 1e6, message.exact)


def result_to_proto(result: types.SearchResult, names: frozenset[str]) -> search_pb2.SearchResponse:
    """Sends of each case the named fields."""
    response = search_pb2.SearchResponse(
        hits=[_hit(hit, names) for hit in result.hits],  # type: ignore[misc]  # the stub wants messages
        query_images=[query_image_to_proto(image, names) for image in result.query_images],
        encoder=encoder_to_proto(result.encoder),
        candidate_count=result.candidate_count,
        notes=result.notes,
    )
    if result.timings:
        response.timings.CopyFrom(types_pb2.StageTimings(**dataclasses.asdict(result.timings)))
    return response


def result_from_proto(response: search_pb2.SearchResponse) -> types.SearchResult:
    """The inverse of result_to_proto."""
    timings = {field.name: value for field, value in response.timings.ListFields()}
    return types.SearchResult(
        hits=hits_from_proto(response.hits),
        query_images=tuple(query_image_from_proto(image) for image in response.query_images),
        encoder=encoder_from_proto(response.encoder),
        candidate_count=response.candidate_count,
        timings=types.StageTimings(**timings) if response.HasField("timings") else None,
        notes=tuple(response.notes),
    )


def decision_to_proto(decision: types.Decision, names: frozenset[str]) -> decision_pb2.Decision:
    """Each piece of evidence carries its value, weight and stance; what the decision does not have stays unset."""
    evidence = [
        decision_pb2.Evidence(
            hit=_hit(piece.hit, names),  # type: ignore[arg-type]  # the stub wants a message
            value=piece.value,
            weight=piece.weight,
            stance=decision_pb2.STANCE_SUPPORTING if piece.is_supporting else decision_pb2.STANCE_OPPOSING,
        )
        for piece in decision.evidence
    ]
    measurement = decision.measurement
    return decision_pb2.Decision(
        finding=decision.finding,
        call=_CALLS[decision.call],
        abstain_reason=decision.abstain_reason,
        explanation=decision.explanation,
        votes=[decision_pb2.Vote(value=vote.value, share=vote.share, count=vote.count) for vote in decision.votes],
        evidence=evidence,
        score=decision.score,
        probability=decision.probability,
        operating_point=_point_or_none(decision.operating_point),
        rule_out_point=_point_or_none(decision.rule_out_point),
        ppv=_interval_or_none(decision.ppv),
        npv=_interval_or_none(decision.npv),
        strength=_strength_to_proto(decision.strength) if decision.strength else None,
        measurement=decision_pb2.Measurement(**dataclasses.asdict(measurement)) if measurement else None,
        record_id=decision.record_id,
        point_calls=[_point_call_to_proto(each) for each in decision.point_calls],
    )


def decision_from_proto(message: decision_pb2.Decision) -> types.Decision:
    """The inverse of decision_to_proto."""
    return types.Decision(
        finding=message.finding,
        call=_SAID[message.call],
        votes=tuple(types.Vote(vote.value, vote.share, vote.count) for vote in message.votes),
        evidence=tuple(
            types.Evidence(
                hit_from_proto(piece.hit), piece.value, piece.weight, piece.stance == decision_pb2.STANCE_SUPPORTING
            )
            for piece in message.evidence
        ),
        abstain_reason=message.abstain_reason,
        explanation=message.explanation,
        score=message.score if message.HasField("score") else None,
        probability=message.probability if message.HasField("probability") else None,
        operating_point=point_from_proto(message.operating_point) if message.HasField("operating_point") else None,
        rule_out_point=point_from_proto(message.rule_out_point) if message.HasField("rule_out_point") else None,
        ppv=interval_from_proto(message.ppv) if message.HasField("ppv") else None,
        npv=interval_from_proto(message.npv) if message.HasField("npv") else None,
        strength=_strength_from_proto(message.strength) if message.HasField("strength") else None,
        measurement=_measurement_from_proto(message.measurement) if message.HasField("measurement") else None,
        record_id=message.record_id,
        point_calls=tuple(_point_call_from_proto(each) for each in message.point_calls),
    )


def decisions_from_proto(response: decision_pb2.DecideResponse) -> types.DecisionResult:
    """In the same order."""
    return types.DecisionResult(
        tuple(decision_from_proto(decision) for decision in response.decisions),
        query_image_from_proto(response.query_image),
        encoder_from_proto(response.encoder),
        tuple(response.notes),
    )


def point_to_proto(point: types.OperatingPoint) -> decision_pb2.OperatingPoint:
    """Field by field."""
    return decision_pb2.OperatingPoint(
        name=point.name,
        threshold=point.threshold,
        method=point.method,
        guarantee=point.guarantee,
        sensitivity=interval_to_proto(point.sensitivity),
        specificity=interval_to_proto(point.specificity),
        positive_patients=point.positive_patients,
        negative_patients=point.negative_patients,
        called_sensitivity=_interval_or_none(point.called_sensitivity),
        called_specificity=_interval_or_none(point.called_specificity),
        called_positive_patients=point.called_positive_patients,
        called_negative_patients=point.called_negative_patients,
    )


def point_from_proto(message: decision_pb2.OperatingPoint) -> types.OperatingPoint:
    """The inverse of point_to_proto."""
    names = [field.name for field in dataclasses.fields(types.OperatingPoint)]
    found: dict[str, Any] = {name: getattr(message, name) for name in names if name not in _RATES}
    found |= {field.name: interval_from_proto(value) for field, value in message.ListFields() if field.name in _RATES}
    return types.OperatingPoint(**found)


_RATES = ("sensitivity", "specificity", "called_sensitivity", "called_specificity")


def interval_to_proto(interval: types.Interval) -> types_pb2.Interval:
    """Field by field."""
    return types_pb2.Interval(value=interval.value, low=interval.low, high=interval.high, level=interval.level)


def interval_from_proto(message: types_pb2.Interval) -> types.Interval:
    """The inverse of interval_to_proto."""
    return types.Interval(message.value, message.low, message.high, message.level)


def roc_from_proto(message: decision_pb2.GetRocResponse) -> types.Roc:
    """In the same order."""
    return types.Roc(
        points=tuple(
            types.RocPoint(each.threshold, each.true_positive_rate, each.false_positive_rate) for each in message.points
        ),
        auroc=interval_from_proto(message.auroc) if message.HasField("auroc") else None,
        positive_patients=message.positive_patients,
        negative_patients=message.negative_patients,
    )


def finding_from_proto(message: decision_pb2.Finding) -> types.FindingSummary:
    """Without codes, which only machines read."""
    return types.FindingSummary(
        name=message.name,
        display_name=message.display_name,
        version=message.version,
        scorer=message.scorer,
        labelled_count=message.labelled_count,
        operating_points=tuple(message.operating_points),
        default_operating_point=message.default_operating_point,
        positive_values=tuple(message.positive_values),
        refused_points=tuple(
            types.RefusedPoint(each.name, each.reason, each.patients_needed, each.patients)
            for each in message.refused_points
        ),
    )


def _point_call_to_proto(each: types.PointCall) -> decision_pb2.PointCall:
    return decision_pb2.PointCall(
        name=each.name,
        call=_CALLS[each.call],
        abstain_reason=each.abstain_reason,
        operating_point=point_to_proto(each.operating_point),
        rule_out_point=_point_or_none(each.rule_out_point),
        asked=each.is_asked,
    )


def _point_call_from_proto(each: decision_pb2.PointCall) -> types.PointCall:
    point = point_from_proto(each.operating_point)
    rule_out = point_from_proto(each.rule_out_point) if each.HasField("rule_out_point") else None
    return types.PointCall(each.name, _SAID[each.call], each.abstain_reason, point, rule_out, each.asked)


def _point_or_none(point: types.OperatingPoint | None) -> decision_pb2.OperatingPoint | None:
    return point_to_proto(point) if point else None


def _interval_or_none(interval: types.Interval | None) -> types_pb2.Interval | None:
    return interval_to_proto(interval) if interval else None


def _strength_to_proto(strength: types.Strength) -> decision_pb2.Strength:
    inside, positives = strength.in_evidence, strength.on_positives
    return decision_pb2.Strength(
        in_evidence=decision_pb2.Bounds(low=inside.low, high=inside.high),
        on_positives=decision_pb2.Bounds(low=positives.low, high=positives.high),
    )


def _strength_from_proto(message: decision_pb2.Strength) -> types.Strength:
    inside, positives = message.in_evidence, message.on_positives
    return types.Strength(types.Bounds(inside.low, inside.high), types.Bounds(positives.low, positives.high))


def _measurement_from_proto(message: decision_pb2.Measurement) -> types.Measurement:
    names = [field.name for field in dataclasses.fields(types.Measurement)]
    return types.Measurement(**{name: getattr(message, name) for name in names})
