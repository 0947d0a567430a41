"""DecisionService: the votes of the evidence for each finding, without a call until operating points are fitted."""

from __future__ import annotations

from collections.abc import AsyncIterator

from nearcase.convert import check_case_mask, decision_to_proto, encoder_to_proto, query_image_to_proto
from nearcase.decide.vote import decide
from nearcase.errors import InvalidInput, NotFound, Unsupported
from nearcase.index.filter_text import parse
from nearcase.retrieve.library import all_of, has_label
from nearcase.retrieve.search import Query, Scope, search
from nearcase.serve.chunks import receive
from nearcase.serve.context import Context
from nearcase.serve.engine import Engine
from nearcase.types import Decision
from nearcase.v1 import decision_pb2, decision_pb2_grpc

MAX_EVIDENCE = 1000
DEFAULT_EVIDENCE = 10  # K of the published routine's code


class DecisionService(decision_pb2_grpc.DecisionServiceServicer):
    """Says what the prior cases say; its findings are the labels of the library."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def ListFindings(
        self, request: decision_pb2.ListFindingsRequest, context: Context
    ) -> decision_pb2.ListFindingsResponse:
        """Lists the labels of the library by name; the page token is the last name sent."""
        if request.page_size < 0:
            raise InvalidInput(f"expected page_size from 0, got {request.page_size}", field="page_size")
        counts = await self._engine.library.labels()
        names = sorted(name for name in counts if name > request.page_token)
        size = min(request.page_size if request.page_size > 0 else 100, 1000)
        findings = [
            decision_pb2.Finding(
                name=name, display_name=name, label=name, scorer="neighbours", labelled_count=counts[name]
            )
            for name in names[:size]
        ]
        more = names[size - 1] if len(names) > size else ""
        return decision_pb2.ListFindingsResponse(findings=findings, next_page_token=more)

    async def Decide(self, request: decision_pb2.DecideRequest, context: Context) -> decision_pb2.DecideResponse:
        """Weighs the evidence about an image or a case of the library."""
        return await self._decide(request, context)

    async def DecideStream(
        self, request_iterator: AsyncIterator[decision_pb2.DecideStreamRequest], context: Context
    ) -> decision_pb2.DecideStreamResponse:
        """Decide for one file in chunks."""
        start, data = await receive(request_iterator, _check, self._engine.settings.max_image_bytes)
        request = decision_pb2.DecideRequest(image=data, options=start.options)
        if start.HasField("frame_number"):
            request.frame_number = start.frame_number
        return decision_pb2.DecideStreamResponse(response=await self._decide(request, context))

    async def GetRoc(self, request: decision_pb2.GetRocRequest, context: Context) -> decision_pb2.GetRocResponse:
        """Not served yet: no curve was fitted."""
        raise Unsupported("UNIMPLEMENTED: this version fits no ROC curves", reason="UNIMPLEMENTED")

    async def ListOperatingPoints(
        self, request: decision_pb2.ListOperatingPointsRequest, context: Context
    ) -> decision_pb2.ListOperatingPointsResponse:
        """Not served yet: no point was fitted."""
        raise Unsupported("UNIMPLEMENTED: this version fits no operating points", reason="UNIMPLEMENTED")

    async def _decide(self, request: decision_pb2.DecideRequest, context: Context) -> decision_pb2.DecideResponse:
        _check(request.options)
        names = check_case_mask(request.options.case_mask)
        findings = await self._findings(request.options.finding)
        example = await self._engine.example(request, 1.0, deadline_s=self._engine.deadline_s(context))
        decisions = [await self._weigh(finding, example.query, request.options) for finding in findings]
        return decision_pb2.DecideResponse(
            decisions=[decision_to_proto(decision, names) for decision in decisions],
            query_image=query_image_to_proto(example.image, names),
            encoder=encoder_to_proto(self._engine.summary),
        )

    async def _findings(self, asked: str) -> list[str]:
        known = await self._engine.library.labels()
        if asked and asked not in known:
            raise NotFound(
                "no case of this library has that label; ListFindings lists them", reason="FINDING_NOT_FOUND"
            )
        return [asked] if asked else sorted(known)

    async def _weigh(self, finding: str, query: Query, options: decision_pb2.DecideOptions) -> Decision:
        asked = self._engine.privacy.where(parse(options.filter)) if options.filter.strip() else None
        where = all_of(asked, has_label(finding))
        with_thumbnails = "thumbnail_jpeg" in check_case_mask(options.case_mask)
        scope = Scope(k=options.k or DEFAULT_EVIDENCE, where=where, with_thumbnails=with_thumbnails)
        return decide(finding, (await search(self._engine.index, [query], scope)).hits)


def _check(options: decision_pb2.DecideOptions) -> None:
    for name in ("operating_point", "prevalence"):
        if options.HasField(name):
            message = f"UNIMPLEMENTED: this version fits no operating points, so {name} can not be honoured"
            raise Unsupported(message, reason="UNIMPLEMENTED", field=name)
    if not 0 <= options.k <= MAX_EVIDENCE:
        raise InvalidInput(f"expected k from 1 to {MAX_EVIDENCE}, got {options.k}", field="k")
