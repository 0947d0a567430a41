"""A cohort through the server's own search and vote: what each image's neighbours say, its own patient left out."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nearcase.decide.vote import decide
from nearcase.index.base import Index, Point
from nearcase.index.filters import And, Equals, Filter
from nearcase.index.opening import open_index
from nearcase.retrieve.cases import case_id_of, to_payload
from nearcase.retrieve.scope import has_label
from nearcase.retrieve.search import Query, Scope, search
from nearcase.types import Case, CaseFacts
from nearcase_eval.cohort import Cohort, CohortImage

LIBRARY = "library"
POSITIVE, NEGATIVE = "1", "0"
BATCH = 256


@dataclass(frozen=True, slots=True)
class Neighbourhood:
    """What the neighbours of one query say of one finding."""

    score: float  # share of the evidence that is positive, 0 to 1
    relevant: tuple[bool, ...]  # whether each neighbour, most similar first, has the query's own outcome


Answers = Mapping[str, Mapping[str, Neighbourhood]]
"""Image name to finding to what its neighbours say; a query without labelled neighbours has no entry."""


def replay(
    cohort: Cohort,
    vectors: Mapping[str, NDArray[np.float32]],
    *,
    encoder_identity: str,
    k: int,
    progress: Callable[[int], None],
) -> Answers:
    """Returns the answers for all queries that have a vector.

    A real library is built in a temporary folder and searched as the server does, exactly.
    """
    with tempfile.TemporaryDirectory(prefix="nearcase-eval-") as folder:
        return asyncio.run(_replay(Path(folder) / LIBRARY, cohort, vectors, encoder_identity, k, progress))


async def _replay(
    folder: Path,
    cohort: Cohort,
    vectors: Mapping[str, NDArray[np.float32]],
    encoder_identity: str,
    k: int,
    progress: Callable[[int], None],
) -> Answers:
    dimension = len(next(iter(vectors.values())))
    index = await open_index(folder, dimension=dimension, encoder_identity=encoder_identity)
    try:
        await _fill(index, [image for image in cohort.images if image.is_library and image.name in vectors], vectors)
        answers: dict[str, dict[str, Neighbourhood]] = {}
        for image in cohort.images:
            if image.is_query and image.name in vectors:
                answers[image.name] = await _ask(index, image, vectors[image.name], k)
                progress(1)
        return answers
    finally:
        await index.close()


async def _fill(index: Index, images: Sequence[CohortImage], vectors: Mapping[str, NDArray[np.float32]]) -> None:
    for start in range(0, len(images), BATCH):
        cases = [(to_case(image), vectors[image.name]) for image in images[start : start + BATCH]]
        await index.upsert([Point(case.case_id, vector, to_payload(case)) for case, vector in cases])


async def _ask(index: Index, image: CohortImage, vector: NDArray[np.float32], k: int) -> dict[str, Neighbourhood]:
    answers: dict[str, Neighbourhood] = {}
    query = Query(to_case(image), vector)
    for finding, truth in image.truths.items():
        found = await search(index, [query], Scope(k=k, where=_in_library(finding)))
        if found.hits:
            shares = {vote.value: vote.share for vote in decide(finding, found.hits).votes}
            own = POSITIVE if truth else NEGATIVE
            relevant = tuple(hit.case.labels[finding] == own for hit in found.hits)
            answers[finding] = Neighbourhood(shares.get(POSITIVE, 0.0), relevant)
    return answers


def _in_library(finding: str) -> Filter:
    return And((Equals("source", LIBRARY), has_label(finding)))


def to_case(image: CohortImage) -> Case:
    """Returns the case that a library holds of an image: its patient decides what it may find."""
    facts = CaseFacts(patient_id=image.patient)
    labels = {finding: POSITIVE if truth else NEGATIVE for finding, truth in image.truths.items()}
    return Case(case_id_of(facts, image.name, 1), facts, labels, source=LIBRARY)
