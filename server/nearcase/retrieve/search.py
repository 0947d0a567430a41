"""Query -> hits: filters, own-patient exclusion, and the least similarity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

import numpy as np

from nearcase.errors import InvalidInput
from nearcase.retrieve.cases import THUMBNAIL, other_origin, to_case
from nearcase.retrieve.library import all_of
from nearcase.types import Case, Hit

if TYPE_CHECKING:
    from nearcase.index.base import Index
    from nearcase.index.filters import Filter
    from nearcase.types import Embedding


class SelfExclusion(Enum):
    """Which of the query's own images may be among the hits."""

    PATIENT = "patient"  # nothing of the patient, study or series, and no copy of the file
    STUDY = "study"  # nothing of the study or series, and no copy of the file
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Query:
    """One example: its embedding, what is known of it, and how much it counts; negative is "unlike this"."""

    case: Case
    vector: Embedding
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Scope:
    """Which cases may be found, and how many."""

    k: int = 10
    where: Filter | None = None
    min_similarity: float | None = None
    self_exclusion: SelfExclusion = SelfExclusion.PATIENT
    with_thumbnails: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """The hits, most similar first, and how many cases were in scope."""

    hits: tuple[Hit, ...]
    candidate_count: int


async def search(index: Index, queries: Sequence[Query], scope: Scope) -> Found:
    """Returns the nearest cases of the scope.

    Raises:
        InvalidInput: The examples cancel each other out.
    """
    where = all_of(scope.where, *_exclusions(queries, scope.self_exclusion))
    without = () if scope.with_thumbnails else (THUMBNAIL,)
    neighbours = await index.search(join(queries), limit=scope.k, where=where, without=without)
    least = -1.0 if scope.min_similarity is None else scope.min_similarity
    hits = tuple(
        Hit(to_case(neighbour.point_id, neighbour.payload), neighbour.similarity)
        for neighbour in neighbours
        if neighbour.similarity >= least
    )
    return Found(hits, await index.count(where))


def join(queries: Sequence[Query]) -> Embedding:
    """Returns the unit vector along the weighted sum of the examples' embeddings."""
    total = np.sum([np.float64(query.weight) * query.vector for query in queries], axis=0)
    length = float(np.linalg.norm(total))
    if not np.isfinite(length) or length < 1e-6:
        raise InvalidInput("the examples cancel each other out; change their weights", field="examples")
    joined: Embedding = (total / length).astype(np.float32)
    return joined


def _exclusions(queries: Sequence[Query], exclusion: SelfExclusion) -> list[Filter | None]:
    if exclusion is SelfExclusion.NONE:
        return []
    with_patient = exclusion is SelfExclusion.PATIENT
    return [other_origin(query.case, with_patient=with_patient) for query in queries]
