"""From images to scores: a cohort embedded, searched and voted on by the server's own code, and probed beside it."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nearcase.encode.base import Encoder
from nearcase_eval.cohort import LIBRARY_TEST, Cohort, CohortImage, Finding
from nearcase_eval.embedding import embed_cohort
from nearcase_eval.probe import fit_and_score, out_of_fold
from nearcase_eval.replay import Answers, replay
from nearcase_eval.retrieval import RetrievalMetric, retrieval
from nearcase_eval.sample import patient_codes

NEIGHBOURS, PROBE = "A_", "B_"
"""Prefixes of the two scores in the table: what the audit takes as a score and as the one it is compared with."""

Progress = Callable[[str, int, int], None]
"""Called with a stage, how many images more are done, and of how many."""


@dataclass(frozen=True, slots=True)
class FindingResult:
    """What was measured of one finding; scores are NaN where an image has none."""

    finding: Finding
    images: tuple[CohortImage, ...]  # queries whose outcome is known and that could be read
    neighbours: NDArray[np.float64]
    probe: NDArray[np.float64]
    retrieval: tuple[RetrievalMetric, ...]


@dataclass(frozen=True, slots=True)
class CohortResult:
    """A run over a whole cohort."""

    cohort: Cohort
    results: tuple[FindingResult, ...]
    refused: Mapping[str, str]  # image name to why it could not be read


def run_cohort(
    cohort: Cohort, encoder: Encoder, cache: Path, *, k: int, seed: int, workers: int, progress: Progress
) -> CohortResult:
    """Returns the scores of both scorers and the retrieval metrics of each finding.

    Args:
        cohort: What to evaluate.
        encoder: As the server runs it.
        cache: Folder of embeddings; a broken run goes on from there.
        k: Neighbours that vote.
        seed: Of the probe's folds.
        workers: Decoding children.
        progress: Told of every image.
    """
    names = [image.name for image in cohort.images]
    embedded = embed_cohort(
        cohort.files, names, encoder, cache, workers=workers, progress=lambda done: progress("embed", done, len(names))
    )
    vectors = dict(zip(embedded.names, embedded.vectors, strict=True))
    queries = sum(image.is_query and image.name in vectors for image in cohort.images)
    answers = replay(
        cohort,
        vectors,
        encoder_identity=encoder.card.identity,
        k=k,
        progress=lambda done: progress("search", done, queries),
    )
    results = tuple(_finding(cohort, finding, vectors, answers, k, seed) for finding in cohort.findings)
    return CohortResult(cohort, results, embedded.refused)


def _finding(
    cohort: Cohort,
    finding: Finding,
    vectors: Mapping[str, NDArray[np.float32]],
    answers: Answers,
    k: int,
    seed: int,
) -> FindingResult:
    known = [image for image in cohort.images if finding.name in image.truths and image.name in vectors]
    queries = tuple(image for image in known if image.is_query)
    found = [answers[image.name].get(finding.name) for image in queries]
    scores = np.array([np.nan if each is None else each.score for each in found])
    return FindingResult(
        finding=finding,
        images=queries,
        neighbours=scores,
        probe=_probe(cohort, finding, known, vectors, seed),
        retrieval=_retrieval(finding, known, queries, answers, k),
    )


def _probe(
    cohort: Cohort,
    finding: Finding,
    known: Sequence[CohortImage],
    vectors: Mapping[str, NDArray[np.float32]],
    seed: int,
) -> NDArray[np.float64]:
    matrix = np.stack([vectors[image.name] for image in known])
    truth = np.array([image.truths[finding.name] for image in known])
    if cohort.protocol == LIBRARY_TEST:
        library = np.array([image.is_library for image in known])
        query = np.array([image.is_query for image in known])
        return fit_and_score(matrix[library], truth[library], matrix[query])
    codes, _ = patient_codes([image.patient for image in known], len(known))
    return out_of_fold(matrix, truth, codes, seed=seed)


def _retrieval(
    finding: Finding, known: Sequence[CohortImage], queries: Sequence[CohortImage], answers: Answers, k: int
) -> tuple[RetrievalMetric, ...]:
    """Relevant is a library image of another patient with the query's own outcome; short lists are padded as misses."""
    relevance = np.zeros((len(queries), k))
    library = [image for image in known if image.is_library]
    totals = {truth: sum(image.truths[finding.name] is truth for image in library) for truth in (True, False)}
    own: dict[tuple[str, bool], int] = {}
    for image in library:
        key = (image.patient, image.truths[finding.name])
        own[key] = own.get(key, 0) + 1
    total = np.zeros(len(queries), dtype=np.int64)
    for row, image in enumerate(queries):
        truth = image.truths[finding.name]
        total[row] = totals[truth] - own.get((image.patient, truth), 0)
        found = answers[image.name].get(finding.name)
        if found is not None:
            relevance[row, : len(found.relevant)] = found.relevant
    cutoffs = [cutoff for cutoff in (1, 5, 10) if cutoff <= k]
    return retrieval(relevance, total, cutoffs=cutoffs, patient=[image.patient for image in queries])


def write_scores(result: CohortResult, file: Path) -> None:
    """Writes one row for each query: patient, sex, age, other columns, truth and both scores of each finding.

    A score or outcome that is not known is an empty cell. The file is complete or absent.
    """
    cohort = result.cohort
    rows = {image.name: _row(image, cohort.extra_columns) for image in cohort.images if image.is_query}
    for each in result.results:
        for image, neighbours, probe in zip(each.images, each.neighbours, each.probe, strict=True):
            name, row = each.finding.name, rows[image.name]
            row[f"y_{name}"] = str(int(image.truths[name]))
            row[f"{NEIGHBOURS}{name}"] = _cell(neighbours)
            row[f"{PROBE}{name}"] = _cell(probe)
    findings = [f"{prefix}{finding.name}" for finding in cohort.findings for prefix in ("y_", NEIGHBOURS, PROBE)]
    columns = ["image_id", "patient_id", "sex", "age", *cohort.extra_columns, *findings]
    part = file.with_name(file.name + ".part")
    with part.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows.values())
    os.replace(part, file)


def _row(image: CohortImage, extra: Sequence[str]) -> dict[str, str]:
    facts = {"image_id": image.name, "patient_id": image.patient, "sex": image.sex, "age": image.age}
    return facts | {name: image.columns.get(name, "") for name in extra}


def _cell(score: float) -> str:
    return "" if np.isnan(score) else repr(float(score))
