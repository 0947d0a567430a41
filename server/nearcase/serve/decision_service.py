"""DecisionService: convert, decide, convert back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import TypeVar

from nearcase.convert import (
    check_case_mask,
    decision_to_proto,
    encoder_to_proto,
    interval_to_proto,
    point_to_proto,
    query_image_to_proto,
)
from nearcase.decide.finding import Finding
from nearcase.decide.fitted import Fitted
from nearcase.decide.operating import Choice
from nearcase.decide.rate import check_prevalence
from nearcase.errors import InvalidInput, Unsupported
from nearcase.index.filter_text import parse
from nearcase.serve.caveats import caveats
from nearcase.serve.chunks import receive
from nearcase.serve.context import Context
from nearcase.serve.deciding import Question, decide_all
from nearcase.serve.engine import Engine
from nearcase.serve.examples import example_of
from nearcase.serve.inquiries import inquiry_of
from nearcase.serve.notes import notes
from nearcase.v1 import decision_pb2, decision_pb2_grpc

MAX_EVIDENCE = 1000
LEAST_ALIKE = 0.9
T = TypeVar("T")


class DecisionService(decision_pb2_grpc.DecisionServiceServicer):
    """Says what the prior cases say of the declared findings and of the library's other labels."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def ListFindings(
        self, request: decision_pb2.ListFindingsRequest, context: Context
    ) -> decision_pb2.ListFindingsResponse:
        """Lists the findings by name; the page token is the last name sent."""
        every = await self._engine.findings.all()
        later = [name for name in every if name > request.page_token]
        names, more = _page(later, request.page_size, 0)
        findings = [
            _to_proto(*every[name], await self._engine.findings.labelled_count(every[name][0])) for name in names
        ]
        return decision_pb2.ListFindingsResponse(findings=findings, next_page_token=names[-1] if more else "")

    async def Decide(self, request: decision_pb2.DecideRequest, context: Context) -> decision_pb2.DecideResponse:
        """Decides about an image, or about several as one: a series or study."""
        return await self._decide(request, context)

    async def DecideStream(
        self, request_iterator: AsyncIterator[decision_pb2.DecideStreamRequest], context: Context
    ) -> decision_pb2.DecideStreamResponse:
        """Decide for one file in chunks."""
        start_s = self._engine.clock.monotonic_s()
        settings = self._engine.settings
        start, data = await receive(request_iterator, _question, settings.max_image_bytes, settings.stream_idle_s)
        self._engine.took(receive=(self._engine.clock.monotonic_s() - start_s) * 1e3)
        request = decision_pb2.DecideRequest(image=data, options=start.options)
        if start.HasField("frame_number"):
            request.frame_number = start.frame_number
        if start.HasField("facts"):
            request.facts.CopyFrom(start.facts)
        return decision_pb2.DecideStreamResponse(response=await self._decide(request, context))

    async def GetRoc(self, request: decision_pb2.GetRocRequest, context: Context) -> decision_pb2.GetRocResponse:
        """Returns the held-out curve of a fitted finding."""
        finding, fitted = await self._engine.findings.one(request.finding)
        if fitted is None or not fitted.curve:
            raise Unsupported(f"expected a finding with a fitted curve, got {finding.name}", reason="NOT_FITTED")
        return decision_pb2.GetRocResponse(
            points=[
                decision_pb2.RocPoint(
                    threshold=each.threshold,
                    true_positive_rate=each.sensitivity.value,
                    false_positive_rate=1.0 - each.specificity.value,
                )
                for each in fitted.curve
            ],
            auroc=interval_to_proto(fitted.auroc) if fitted.auroc else None,
            positive_patients=fitted.held_out.positive_patients,
            negative_patients=fitted.held_out.negative_patients,
        )

    async def ListOperatingPoints(
        self, request: decision_pb2.ListOperatingPointsRequest, context: Context
    ) -> decision_pb2.ListOperatingPointsResponse:
        """Lists the fitted points of a finding; the page token is how many were sent."""
        _, fitted = await self._engine.findings.one(request.finding)
        points = sorted(fitted.points, key=lambda point: point.threshold) if fitted else []
        sent = request.page_token or "0"
        if not (sent.isascii() and sent.isdecimal()) or len(sent) > 9:
            raise InvalidInput("expected a page_token that an answer gave, got other text", field="page_token")
        shown, more = _page(points, request.page_size, int(sent))
        token = str(int(sent) + len(shown)) if more else ""
        answer = [point_to_proto(point.shown) for point in shown]
        return decision_pb2.ListOperatingPointsResponse(operating_points=answer, next_page_token=token)

    async def GetRecord(
        self, request: decision_pb2.GetRecordRequest, context: Context
    ) -> decision_pb2.GetRecordResponse:
        """Returns the record of a decision as it was written."""
        data = await asyncio.to_thread(self._engine.records.read, request.record_id)
        notes().detail = f"record {request.record_id}"
        return decision_pb2.GetRecordResponse(record=data)

    async def _decide(self, request: decision_pb2.DecideRequest, context: Context) -> decision_pb2.DecideResponse:
        async with self._engine.line.turn():
            return await self._decided(request, context)

    async def _decided(self, request: decision_pb2.DecideRequest, context: Context) -> decision_pb2.DecideResponse:
        question = _asked(request, self._engine)
        notes().asked("filter", request.options.filter.strip())
        names = check_case_mask(request.options.case_mask)
        if question.finding:
            await self._engine.findings.one(question.finding)  # an unknown one is refused before the image is read
        deadline_s, with_thumbnail = self._engine.deadline_s(context), question.with_thumbnails
        example = await example_of(self._engine, request, deadline_s=deadline_s, with_thumbnail=with_thumbnail)
        inquiry = replace(question.inquiry, has_patient=all(query.has_patient for query in example.queries))
        decisions = await decide_all(self._engine, example.queries, replace(question, inquiry=inquiry))
        hits = [piece.hit for decision in decisions for piece in decision.evidence]
        return decision_pb2.DecideResponse(
            decisions=[decision_to_proto(decision, names) for decision in decisions],
            query_image=query_image_to_proto(example.image, names),
            encoder=encoder_to_proto(self._engine.summary),
            notes=caveats(example.queries, hits),
        )


def _asked(request: decision_pb2.DecideRequest, engine: Engine) -> Question:
    """Returns what is asked, with how."""
    question = _question(request.options)
    where = engine.privacy.where(question.where) if question.where else None
    return replace(question, where=where, inquiry=inquiry_of(request, question, question.where))


def _question(options: decision_pb2.DecideOptions) -> Question:
    """Returns what is asked, by the ids that the caller knows."""
    if not 0 <= options.k <= MAX_EVIDENCE:
        raise InvalidInput(f"expected k from 1 to {MAX_EVIDENCE}, got {options.k}", field="k")
    return Question(
        finding=options.finding,
        choice=_choice(options.operating_point) if options.HasField("operating_point") else None,
        prevalence=check_prevalence(options.prevalence) if options.HasField("prevalence") else None,
        where=parse(options.filter) if options.filter.strip() else None,
        k=options.k,
        with_thumbnails="thumbnail_jpeg" in check_case_mask(options.case_mask),
        near_duplicate_similarity=_copies(options),
    )


def _copies(options: decision_pb2.DecideOptions) -> float | None:
    """Below LEAST_ALIKE they are no copies, and to leave out what is nearest would turn a decision as one likes."""
    if not options.HasField("near_duplicate_similarity"):
        return None
    least = options.near_duplicate_similarity
    if not LEAST_ALIKE <= least <= 1.0:
        message = f"expected near_duplicate_similarity from {LEAST_ALIKE} to 1, got {least:g}"
        raise InvalidInput(message, field="near_duplicate_similarity")
    return least


def _choice(message: decision_pb2.OperatingPointChoice) -> Choice:
    match message.WhichOneof("choice"):
        case "name":
            return Choice(name=message.name)
        case "target_sensitivity":
            return Choice(target_sensitivity=message.target_sensitivity)
        case "target_specificity":
            return Choice(target_specificity=message.target_specificity)
        case "cost_ratio":
            return Choice(cost_ratio=message.cost_ratio)
        case _:
            raise InvalidInput("expected one choice of operating point, got none", field="operating_point")


def _to_proto(finding: Finding, fitted: Fitted | None, labelled_count: int) -> decision_pb2.Finding:
    refusals = fitted.refusals if fitted else ()
    return decision_pb2.Finding(
        name=finding.name,
        display_name=finding.shown,
        codes=[decision_pb2.Code(scheme=each.scheme, value=each.value, meaning=each.meaning) for each in finding.codes],
        label=finding.label,
        positive_values=finding.positive_values,
        scorer=finding.scorer.kind,
        labelled_count=labelled_count,
        calibrated=fitted is not None and fitted.calibration is not None,
        operating_points=fitted.point_names if fitted else (),
        version=finding.version,
        default_operating_point=finding.default_operating_point,
        refused_points=[
            decision_pb2.RefusedPoint(
                name=each.name, reason=each.reason, patients_needed=each.patients_needed, patients=each.patients
            )
            for each in refusals
        ],
    )


def _page(items: Sequence[T], page_size: int, start: int) -> tuple[Sequence[T], bool]:
    """Returns one page, and whether there are more."""
    if page_size < 0:
        raise InvalidInput(f"expected page_size from 0, got {page_size}", field="page_size")
    end = start + min(page_size if page_size > 0 else 100, 1000)
    return items[start:end], len(items) > end
