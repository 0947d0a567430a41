"""From a request and its image to decisions: search in the finding's scope, decide, keep the record."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from nearcase import __version__
from nearcase.decide.decision import Asked, Context, Decided, decide
from nearcase.decide.finding import Finding
from nearcase.decide.fitted import Fitted, Library, Values
from nearcase.decide.inquiry import PLAIN, Inquiry
from nearcase.decide.operating import Choice
from nearcase.retrieve.library import all_of
from nearcase.retrieve.pooled import pool_queries
from nearcase.retrieve.scope import Pooling, Query, Scope, SeriesMethod
from nearcase.retrieve.search import Found, search
from nearcase.retrieve.stored import common_facts
from nearcase.serve.notes import notes

if TYPE_CHECKING:
    from nearcase.index.filters import Filter
    from nearcase.serve.engine import Engine
    from nearcase.types import CaseFacts, Decision, Embedding

ATTEMPTS = 3
"""Searches again where the library changed during one, so that the record names the state that was searched. After as
many the record names none: who adds without end does not keep others from seeing the evidence."""


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of an image, whatever the finding."""

    finding: str = ""  # "" is all in scope
    choice: Choice | None = None
    prevalence: float | None = None
    where: Filter | None = None
    k: int = 0  # 0 is the finding's own
    with_thumbnails: bool = False
    near_duplicate_similarity: float | None = None  # images as like the query as this are left out
    inquiry: Inquiry = PLAIN  # how it was asked, for the record


@dataclass(frozen=True, slots=True)
class _Subject:
    """What the decisions are about: one image, or several as one."""

    queries: tuple[Query, ...]
    facts: CaseFacts  # that all images state alike
    vector: Embedding  # of one image as it is, of several the mean
    sha256: str
    images: tuple[str, ...]  # of several, the hash of each

    @classmethod
    def of(cls, queries: tuple[Query, ...]) -> _Subject:
        """Several images are known by the hash of their hashes, one a line, in order."""
        hashes = sorted(query.case.content_sha256 for query in queries)
        many = hashlib.sha256("\n".join(hashes).encode()).hexdigest()
        vector = queries[0].vector if len(queries) == 1 else pool_queries(queries, Pooling.MEAN)
        facts = common_facts([query.case.facts for query in queries])
        if len(queries) == 1:
            return cls(queries, facts, vector, hashes[0], ())
        return cls(queries, facts, vector, many, tuple(hashes))


@dataclass(frozen=True, slots=True)
class _Searched:
    """What was found, and in which library."""

    found: Found
    library: Library
    kept: Values | None  # its labelled cases that are as they were at the fit


async def decide_all(engine: Engine, queries: tuple[Query, ...], question: Question) -> list[Decision]:
    """Returns one decision for each finding that is asked, each with its record on disk.

    Args:
        engine: The running parts.
        queries: One image, or all of a series or study, which are decided about by their mean embedding.
        question: What is asked.

    Raises:
        NotFound: There is no such finding, or it has no operating point of that name.
        Unsupported: The fitted data can not support the target that was asked for.
        Unready: A record can not be kept.
    """
    subject = _Subject.of(queries)
    notes().asked_about(query.case for query in queries)
    if question.finding:
        chosen = [await engine.findings.one(question.finding)]
    else:
        every = (await engine.findings.all()).values()
        chosen = [(finding, fitted) for finding, fitted in every if finding.scope.takes(subject.facts)]
    decided = [await _decide(engine, finding, fitted, subject, question) for finding, fitted in chosen]
    await asyncio.to_thread(engine.records.keep, [each.file for each in decided])
    for (finding, fitted), each in zip(chosen, decided, strict=True):
        like_fit = fitted if len(queries) == 1 else None
        is_declared = engine.findings.is_declared(finding.name)
        engine.metrics.take_decision(each.decision, like_fit, subject.facts, is_declared=is_declared)
    notes().decisions += [each.decision for each in decided]
    return [each.decision for each in decided]


async def _decide(
    engine: Engine, finding: Finding, fitted: Fitted | None, subject: _Subject, question: Question
) -> Decided:
    asked = Asked(
        facts=subject.facts,
        vector=subject.vector,
        choice=question.choice,
        prevalence=question.prevalence,
        is_one_of_many=not question.finding,
        image_sha256=subject.sha256,
        images=subject.images,
        image_count=len(subject.queries),
        inquiry=question.inquiry,
    )
    finding = finding.with_k(question.k) if question.k else finding
    searched = await _find(engine, finding, fitted, subject, question)
    context = Context(
        encoder=engine.card.identity,
        library=searched.library,
        kept=searched.kept,
        labelled_count=searched.found.candidate_count,
        secret=secrets.token_bytes(32),
        is_exact=await engine.library.exactness.at(searched.library.snapshot),
        is_narrowed=question.where is not None or question.near_duplicate_similarity is not None,
        at_s=engine.clock.now_s(),
        made_by=f"nearcase {__version__}",
        is_keyed=engine.privacy.is_on,
    )
    start_s = engine.clock.monotonic_s()
    decided = decide(finding, fitted, searched.found.hits, asked, context)
    engine.took(decide=(engine.clock.monotonic_s() - start_s) * 1e3)
    return decided


async def _find(
    engine: Engine, finding: Finding, fitted: Fitted | None, subject: _Subject, question: Question
) -> _Searched:
    """Equal similarities are ordered by case id in the index too, so that the K nearest are the same on every day."""
    method = SeriesMethod.POOLED if len(subject.queries) > 1 else None
    scope = Scope(
        k=finding.scorer.k,
        with_thumbnails=question.with_thumbnails,
        method=method,
        near_duplicate_similarity=question.near_duplicate_similarity,
    )
    start_s = engine.clock.monotonic_s()
    for _ in range(ATTEMPTS):
        state = await engine.library.state()
        where = all_of(await engine.findings.evidence(finding), question.where)
        found = await search(engine.index, subject.queries, replace(scope, where=where))
        labelled_count = await engine.findings.labelled_count(finding)
        kept = await engine.findings.kept(finding, fitted)
        if await engine.library.state() == state:
            snapshot = state[0]
            break
    else:
        snapshot = ""
    engine.took(search=(engine.clock.monotonic_s() - start_s) * 1e3)
    engine.metrics.take_hits(found.hits)
    notes().searched(found.hits, snapshot)
    return _Searched(found, Library(snapshot, labelled_count), kept)
