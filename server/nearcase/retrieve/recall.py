"""How many of the exact neighbours do searches find? A graph index can miss the right ones without any other sign.

Stored cases are searched with, under several filters, approximately and exactly, and the two answers are compared:
without links a graph with a filter was measured at recall 0.007, where without a filter it had 0.98.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nearcase.index.filter_text import to_text
from nearcase.index.filters import And, Equals, Filter, Range
from nearcase.retrieve.cases import THUMBNAIL
from nearcase.types import RecallReport, RecallRow

if TYPE_CHECKING:
    from nearcase.index.base import Index, Record
    from nearcase.types import Embedding

COMMON_FIELDS = ("modality", "body_part", "sex")
"""Of each the most frequent value is a filter: people search with them, and each keeps many candidates."""

TIE = 1e-6
"""Neighbours as similar as the last exact one are as good as it: the order among equals is chance."""


@dataclass(frozen=True, slots=True)
class Sample:
    """How much of the library to try, and how gently."""

    cases: int = 50
    k: int = 10
    seed: str = ""
    rest: float = 0.0  # pause after each search, in times of what it took: 19 leaves 95 % of the index to others


@dataclass(frozen=True, slots=True)
class _Probe:
    point_id: str
    vector: Embedding


async def check_recall(index: Index, sample: Sample, *, now_s: float) -> RecallReport:
    """Returns recall@k without a filter and under several; where all searches are exact, it is 1 and nothing is tried.

    Args:
        index: What is searched.
        sample: Which cases are searched with; the same seed and library give the same ones.
        now_s: The time that the report says, seconds since 1970.
    """
    state = await index.state()
    records = await _drawn(index, sample)
    probes = [_Probe(each.point_id, each.vector) for each in records if each.vector is not None]
    rows = []
    for where in [None, *await _filters(index, records)]:
        candidates = await index.count(where)
        if where is None or candidates > sample.k:
            tried = [] if state.is_exact else await _recalls(index, probes, where, sample)
            recall = statistics.fmean(tried) if tried else 1.0
            rows.append(RecallRow(to_text(where) if where else "", candidates, recall, len(tried)))
    return RecallReport(tuple(rows), sample.k, now_s, state.is_exact)


async def _drawn(index: Index, sample: Sample) -> list[Record]:
    """Cases at random: ids are hashes, so that the case which follows a random id is any case with equal chance."""
    # Not cryptography: the draw is repeatable on purpose.
    rng = random.Random(sample.seed)  # noqa: S311
    wanted = min(sample.cases, await index.count())
    drawn: dict[str, None] = {}
    for _ in range(4 * wanted):
        if len(drawn) == wanted:
            break
        start = str(uuid.UUID(int=rng.getrandbits(128)))
        page = await index.scroll(limit=1, cursor=start, without=(THUMBNAIL,))
        drawn.update((record.point_id, None) for record in page.records)
    if len(drawn) < wanted:  # a small library, in which the same ones are drawn again and again
        page = await index.scroll(limit=4 * wanted, without=(THUMBNAIL,))
        drawn.update((record.point_id, None) for record in page.records)
    return await index.get(list(drawn)[:wanted], with_vectors=True)


async def _filters(index: Index, records: Sequence[Record]) -> list[Filter]:
    """The most frequent value of each common field, an age band about the median, and two fields at once."""
    common = [Equals(field, value) for field in COMMON_FIELDS for value in await index.facet(field, limit=1)]
    ages = [age for each in records if isinstance(age := each.payload.get("age_years"), int | float)]
    middle = statistics.median(ages) if ages else None
    bands = [] if middle is None else [Range("age_years", at_least=middle - 5.0, below=middle + 5.0)]
    single: list[Filter] = [*common, *bands]
    return [*single, And((single[0], single[-1]))] if len(single) > 1 else single


async def _recalls(index: Index, probes: Sequence[_Probe], where: Filter | None, sample: Sample) -> list[float]:
    """Of each probe that has neighbours."""
    found = []
    for probe in probes:
        exact = await _others(index, probe, where, sample, exact=True)
        if exact:
            found.append(recall_of(await _others(index, probe, where, sample, exact=False), exact))
    return found


async def _others(index: Index, probe: _Probe, where: Filter | None, sample: Sample, *, exact: bool) -> list[float]:
    """The k best similarities to the probe, its own point left out."""
    start_s = time.perf_counter()
    neighbours = await index.search(probe.vector, limit=sample.k + 1, where=where, without=(THUMBNAIL,), exact=exact)
    await asyncio.sleep(sample.rest * (time.perf_counter() - start_s))
    return [each.similarity for each in neighbours if each.point_id != probe.point_id][: sample.k]


def recall_of(found: Sequence[float], exact: Sequence[float]) -> float:
    """Returns the share of the exact neighbours that were found, 0 to 1.

    Args:
        found: Similarities of what a search found, of different cases.
        exact: Similarities of the true neighbours, at least one.
    """
    worst = min(exact) - TIE
    return min(1.0, sum(similarity >= worst for similarity in found) / len(exact))
