"""SearchService: convert, search, convert back."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Sequence

from nearcase.convert import check_case_mask, result_to_proto
from nearcase.errors import InvalidInput
from nearcase.retrieve.scope import Scope, SelfExclusion
from nearcase.retrieve.search import search
from nearcase.serve.caveats import caveats
from nearcase.serve.chunks import receive
from nearcase.serve.context import Context
from nearcase.serve.engine import Engine
from nearcase.serve.examples import Example, examples_of
from nearcase.serve.notes import notes
from nearcase.serve.scoping import to_scope, weight_of
from nearcase.types import Hit, SearchResult, StageTimings
from nearcase.v1 import search_pb2, search_pb2_grpc

MAX_EXAMPLES = 1024
MAX_FILES = 256
"""Of the examples: each file is decoded and embedded."""
MAX_IMAGES = 4096
"""Of all examples, those of stored series and studies counted one by one."""


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
        clock = self._engine.clock
        start_s = clock.monotonic_s()
        settings = self._engine.settings
        start, data = await receive(request_iterator, _check, settings.max_image_bytes, settings.stream_idle_s)
        receive_ms = (clock.monotonic_s() - start_s) * 1e3
        self._engine.took(receive=receive_ms)
        example = search_pb2.Example(image=data)
        if start.HasField("frame_number"):
            example.frame_number = start.frame_number
        if start.HasField("facts"):
            example.facts.CopyFrom(start.facts)
        request = search_pb2.SearchRequest(examples=[example], options=start.options)
        answer = await self._search(request, context, receive_ms)
        return search_pb2.SearchStreamResponse(response=answer)

    async def _search(
        self, request: search_pb2.SearchRequest, context: Context, receive_ms: float = 0.0
    ) -> search_pb2.SearchResponse:
        async with self._engine.line.turn():
            return await self._found(request, context, receive_ms)

    async def _found(
        self, request: search_pb2.SearchRequest, context: Context, receive_ms: float
    ) -> search_pb2.SearchResponse:
        start_s = self._engine.clock.monotonic_s()
        scope, names = to_scope(request.options, request.examples), check_case_mask(request.options.case_mask)
        if scope.where is not None:
            scope = dataclasses.replace(scope, where=self._engine.privacy.where(scope.where))
        _check_count(request.examples)
        sources = [(example, weight_of(example)) for example in request.examples]
        deadline_s = self._engine.deadline_s(context)
        examples = await examples_of(self._engine, sources, deadline_s=deadline_s, with_thumbnail=scope.with_thumbnails)
        searched_s = self._engine.clock.monotonic_s()
        queries = [query for example in examples for query in example.queries]
        if len(queries) > MAX_IMAGES:
            message = f"expected at most {MAX_IMAGES} images in one query, got {len(queries)}"
            raise InvalidInput(message, field="examples")
        found = await search(self._engine.index, queries, scope)
        noted = notes()
        noted.asked("filter", request.options.filter.strip())
        noted.asked_about(query.case for query in queries)
        noted.searched(found.hits, self._engine.library.known_snapshot)
        result = SearchResult(
            hits=found.hits,
            query_images=tuple(example.image for example in examples),
            encoder=self._engine.summary,
            candidate_count=found.candidate_count,
            notes=_notes(examples, found.hits, scope),
        )
        now_s = self._engine.clock.monotonic_s()
        self._engine.took(search=(now_s - searched_s) * 1e3)
        self._engine.metrics.take_hits(found.hits)
        if request.options.with_timings:
            timings = _timings(examples, now_s - searched_s, now_s - start_s, receive_ms)
            result = dataclasses.replace(result, timings=timings)
        return result_to_proto(result, names)


def _notes(examples: Sequence[Example], hits: Sequence[Hit], scope: Scope) -> tuple[str, ...]:
    """Words have no patient; nor does it matter whose the image is that nothing wanted looks like."""
    if scope.self_exclusion is not SelfExclusion.PATIENT:
        return ()
    return caveats([each for one in examples if not one.is_words for each in one.queries if each.weight > 0], hits)


def _check(options: search_pb2.SearchOptions) -> None:
    to_scope(options, ())


def _check_count(examples: Sequence[search_pb2.Example]) -> None:
    if not 1 <= len(examples) <= MAX_EXAMPLES:
        raise InvalidInput(f"expected 1 to {MAX_EXAMPLES} examples, got {len(examples)}", field="examples")
    files = sum(example.WhichOneof("source") == "image" for example in examples)
    if files > MAX_FILES:
        raise InvalidInput(f"expected at most {MAX_FILES} files in one search, got {files}", field="examples")


def _timings(examples: list[Example], search_s: float, total_s: float, receive_ms: float) -> StageTimings:
    """Stages of several examples ran side by side: the slowest counts."""
    return StageTimings(
        decode_ms=max(example.decode_ms for example in examples),
        queue_ms=max(example.queue_ms for example in examples),
        encode_ms=max(example.encode_ms for example in examples),
        search_ms=search_s * 1e3,
        total_ms=total_s * 1e3 + receive_ms,
        receive_ms=receive_ms,
    )
