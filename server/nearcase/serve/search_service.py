"""SearchService: convert, search, convert back."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import AsyncIterator

from nearcase.convert import check_case_mask, result_to_proto
from nearcase.errors import InvalidInput, Unsupported
from nearcase.index.filter_text import parse
from nearcase.retrieve.search import Scope, SelfExclusion, search
from nearcase.serve.chunks import receive
from nearcase.serve.context import Context
from nearcase.serve.engine import Engine, Example
from nearcase.types import SearchResult, StageTimings
from nearcase.v1 import search_pb2, search_pb2_grpc

MAX_HITS = 1000
MAX_EXAMPLES = 64
_EXCLUSIONS: dict[int, SelfExclusion] = {
    search_pb2.SELF_EXCLUSION_UNSPECIFIED: SelfExclusion.PATIENT,
    search_pb2.SELF_EXCLUSION_PATIENT: SelfExclusion.PATIENT,
    search_pb2.SELF_EXCLUSION_STUDY: SelfExclusion.STUDY,
    search_pb2.SELF_EXCLUSION_NONE: SelfExclusion.NONE,
}


class SearchService(search_pb2_grpc.SearchServiceServicer):
    """Finds prior cases in the library."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def Search(self, request: search_pb2.SearchRequest, context: Context) -> search_pb2.SearchResponse:
        """Finds the cases most like one or several examples."""
        return await self._search(request, context)

    async def SearchStream(
        self, request_iterator: AsyncIterator[search_pb2.SearchStreamRequest], context: Context
    ) -> search_pb2.SearchStreamResponse:
        """Search for one file in chunks."""
        start, data = await receive(request_iterator, to_scope, self._engine.settings.max_image_bytes)
        example = search_pb2.Example(image=data)
        if start.HasField("frame_number"):
            example.frame_number = start.frame_number
        request = search_pb2.SearchRequest(examples=[example], options=start.options)
        return search_pb2.SearchStreamResponse(response=await self._search(request, context))

    async def _search(self, request: search_pb2.SearchRequest, context: Context) -> search_pb2.SearchResponse:
        start_s = self._engine.clock.monotonic_s()
        scope, names = to_scope(request.options), check_case_mask(request.options.case_mask)
        if scope.where is not None:
            scope = dataclasses.replace(scope, where=self._engine.privacy.where(scope.where))
        if not 1 <= len(request.examples) <= MAX_EXAMPLES:
            raise InvalidInput(f"expected 1 to {MAX_EXAMPLES} examples, got {len(request.examples)}", field="examples")
        sources = [(example, _weight(example)) for example in request.examples]
        examples = await self._engine.examples(sources, deadline_s=self._engine.deadline_s(context))
        searched_s = self._engine.clock.monotonic_s()
        found = await search(self._engine.index, [example.query for example in examples], scope)
        result = SearchResult(
            hits=found.hits,
            query_images=tuple(example.image for example in examples),
            encoder=self._engine.summary,
            candidate_count=found.candidate_count,
        )
        if request.options.with_timings:
            now_s = self._engine.clock.monotonic_s()
            result = dataclasses.replace(result, timings=_timings(examples, now_s - searched_s, now_s - start_s))
        return result_to_proto(result, names)


def to_scope(options: search_pb2.SearchOptions) -> Scope:
    """Returns what may be found.

    Raises:
        InvalidInput: A value is out of range, or the filter can not be read.
        Unsupported: An option asks for an engine that is not here.
    """
    refuse_unserved(options)
    if not 0 <= options.k <= MAX_HITS:
        raise InvalidInput(f"expected k from 1 to {MAX_HITS}, got {options.k}", field="k")
    least = options.min_similarity if options.HasField("min_similarity") else None
    if least is not None and not -1 <= least <= 1:
        raise InvalidInput(f"expected min_similarity from -1 to 1, got {least}", field="min_similarity")
    exclusion = _EXCLUSIONS.get(options.self_exclusion)
    if exclusion is None:
        raise InvalidInput(f"unknown self_exclusion {options.self_exclusion}", field="self_exclusion")
    return Scope(
        k=options.k or 10,
        where=parse(options.filter) if options.filter.strip() else None,
        min_similarity=least,
        self_exclusion=exclusion,
        with_thumbnails="thumbnail_jpeg" in check_case_mask(options.case_mask),
    )


def refuse_unserved(options: search_pb2.SearchOptions) -> None:
    """Refuses options of later engines: nothing that was asked for is silently left out."""
    unserved = {
        "grouping": options.grouping not in (search_pb2.GROUPING_UNSPECIFIED, search_pb2.GROUPING_INSTANCE),
        "series_method": options.series_method != search_pb2.SERIES_METHOD_UNSPECIFIED,
        "diversity": options.diversity != 0,
    }
    for name, is_asked in unserved.items():
        if is_asked:
            message = f"UNIMPLEMENTED: the option {name} is not served by this version"
            raise Unsupported(message, reason="UNIMPLEMENTED", field=name)


def _weight(example: search_pb2.Example) -> float:
    weight = example.weight if example.HasField("weight") else 1.0
    if not math.isfinite(weight) or not 0 < abs(weight) <= 1000:
        raise InvalidInput(f"expected a weight up to 1000 that is not 0, got {weight}", field="weight")
    return weight


def _timings(examples: list[Example], search_s: float, total_s: float) -> StageTimings:
    """Stages of several examples ran side by side: the slowest counts."""
    return StageTimings(
        decode_ms=max(example.decode_ms for example in examples),
        queue_ms=max(example.queue_ms for example in examples),
        encode_ms=max(example.encode_ms for example in examples),
        search_ms=search_s * 1e3,
        total_ms=total_s * 1e3,
    )
