"""One place in the order of a search."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nearcase.index.base import Neighbour


@dataclass(frozen=True, slots=True)
class Ranked:
    """A group, or a single image, and why it has its place."""

    best: Neighbour  # the image of it that matched best
    similarity: float  # of that image; of the pooled embeddings where those were compared
    matched_count: int = 1  # images of the query that found it
    score: float | None = None  # what it was ordered by, where that is not the similarity
