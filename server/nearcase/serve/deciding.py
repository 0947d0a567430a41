"""From a request and its image to decisions: search in the finding's scope, decide, keep the record."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nearcase import __version__
from nearcase.decide.decision import Asked, Context, Decided, decide
from nearcase.decide.finding import Finding
from nearcase.decide.fitted import Fitted, Library
from nearcase.decide.operating import Choice
from nearcase.retrieve.library import all_of
from nearcase.retrieve.search import Found, Query, Scope, search
from nearcase.serve.findings import evidence_of

if TYPE_CHECKING:
    from nearcase.index.filters import Filter
    from nearcase.serve.engine import Engine
    from nearcase.types import Decision

ATTEMPTS = 3
"""Searches again where the library changed during one, so that the record names the state that was searched."""


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of an image, whatever the finding."""

    finding: str = ""  # "" is all in scope
    choice: Choice | None = None
    prevalence: float | None = None
    where: Filter | None = None
    k: int = 0  # 0 is the finding's own
    with_thumbnails: bool = False


async def decide_all(engine: Engine, query: Query, question: Question) -> list[Decision]:
    """Returns one decision for each finding that is asked, each with its record on disk.

    Raises:
        NotFound: There is no such finding, or it has no operating point of that name.
        Unsupported: The fitted data can not support the target that was asked for.
        Unready: A record can not be kept.
    """
    if question.finding:
        chosen = [await engine.findings.one(question.finding)]
    else:
        every = (await engine.findings.all()).values()
        chosen = [(finding, fitted) for finding, fitted in every if finding.scope.takes(query.case.facts)]
    decided = [await _decide(engine, finding, fitted, query, question) for finding, fitted in chosen]
    await asyncio.to_thread(engine.records.keep, [each.record for each in decided])
    return [each.decision for each in decided]


async def _decide(engine: Engine, finding: Finding, fitted: Fitted | None, query: Query, question: Question) -> Decided:
    asked = Asked(
        facts=query.case.facts,
        vector=query.vector,
        choice=question.choice,
        prevalence=question.prevalence,
        is_one_of_many=not question.finding,
        image_sha256=query.case.content_sha256,
    )
    finding = finding.with_k(question.k) if question.k else finding
    found, library = await _find(engine, finding, query, question)
    context = Context(
        encoder=engine.card.identity,
        library=library,
        labelled_count=found.candidate_count,
        is_narrowed=question.where is not None,
        at_s=engine.clock.now_s(),
        made_by=f"nearcase {__version__}",
    )
    return decide(finding, fitted, found.hits, asked, context)


async def _find(engine: Engine, finding: Finding, query: Query, question: Question) -> tuple[Found, Library]:
    """Equal similarities are ordered by case id in the index too, so that the K nearest are the same on every day."""
    where = all_of(evidence_of(finding), question.where)
    scope = Scope(k=finding.scorer.k, where=where, with_thumbnails=question.with_thumbnails)
    for _ in range(ATTEMPTS):
        snapshot = await engine.library.snapshot()
        found = await search(engine.index, [query], scope)
        library = Library(snapshot, await engine.findings.labelled_count(finding))
        if await engine.library.snapshot() == snapshot:
            break
    return found, library
