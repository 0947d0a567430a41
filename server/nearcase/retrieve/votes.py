"""The slice vote of 3D-MIR (arXiv 2311.13752): each image of the query names its 20 nearest neighbours.

Groups are ordered by how often they were named, by their best similarity, or by the sum of similarities. Where fewer
groups were named than are wanted, the images vote again among the rest, whose groups come after.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nearcase.index.filters import Filter
from nearcase.retrieve.batches import search_all
from nearcase.retrieve.grouping import beyond, group_of
from nearcase.retrieve.ranked import Ranked
from nearcase.retrieve.scope import Grouping, SeriesMethod

if TYPE_CHECKING:
    from nearcase.index.base import Index, Neighbour
    from nearcase.types import Embedding

NEIGHBOURS = 20
"""Of each image, as in 3D-MIR."""


@dataclass(slots=True)
class _Ballot:
    """What was found of one group."""

    best: Neighbour
    images: set[int] = field(default_factory=set)  # of the query
    similarities: list[float] = field(default_factory=list)


async def ranked_by_votes(
    index: Index,
    vectors: Sequence[Embedding],
    method: SeriesMethod,
    *,
    count: int,
    least: float,
    where: Filter,
    grouping: Grouping,
) -> list[Ranked]:
    """Returns the groups in order; those whose best similarity is below `least` are left out."""
    ranked: list[Ranked] = []
    seen: list[Neighbour] = []
    while len(ranked) < count:
        answers = await search_all(index, vectors, limit=NEIGHBOURS, where=beyond(where, seen, grouping))
        ballots = _ballots(answers, grouping)
        if not any(ballot.best.similarity >= least for ballot in ballots):
            break  # what is left is less similar still
        seen += [ballot.best for ballot in ballots]
        ranked += [each for each in _ordered(ballots, method) if each.similarity >= least]
    return ranked[:count]


def _ballots(answers: Sequence[Sequence[Neighbour]], grouping: Grouping) -> list[_Ballot]:
    ballots: dict[str, _Ballot] = {}
    for image, answer in enumerate(answers):
        for neighbour in answer:
            ballot = ballots.setdefault(group_of(neighbour.point_id, neighbour.payload, grouping), _Ballot(neighbour))
            ballot.best = min(ballot.best, neighbour, key=lambda each: (-each.similarity, each.point_id))
            ballot.images.add(image)
            ballot.similarities.append(neighbour.similarity)
    return list(ballots.values())


def _ordered(ballots: Sequence[_Ballot], method: SeriesMethod) -> list[Ranked]:
    """Equal scores are ordered by the best similarity, then by the id of that image."""
    found = [
        Ranked(ballot.best, ballot.best.similarity, len(ballot.images), _SCORES[method](ballot)) for ballot in ballots
    ]
    return sorted(found, key=lambda each: (-(each.score or 0.0), -each.similarity, each.best.point_id))


_SCORES: dict[SeriesMethod, Callable[[_Ballot], float | None]] = {
    SeriesMethod.FREQUENCY: lambda ballot: float(len(ballot.similarities)),
    SeriesMethod.SUM: lambda ballot: math.fsum(ballot.similarities),
    SeriesMethod.MAX: lambda ballot: None,
}
