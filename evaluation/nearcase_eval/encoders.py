"""Encoders side by side on one cohort: how well each searches and tells outcomes, how evenly, and at what cost.

Every encoder goes through the server's own code, and all AUROCs of a finding rest on the same rows, so that their
differences have paired intervals (DeLong, clustered by patient).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nearcase.encode.base import Encoder
from nearcase.errors import InvalidInput
from nearcase_eval.ages import ages_of
from nearcase_eval.cohort import Cohort, CohortImage
from nearcase_eval.comparison import Comparison, compare
from nearcase_eval.fairness import auroc_gaps
from nearcase_eval.gaps import Gaps
from nearcase_eval.groups import Grouping, by_age, by_sex
from nearcase_eval.latency import Latency, latency
from nearcase_eval.retrieval import RetrievalMetric
from nearcase_eval.run import CohortResult, FindingResult, Progress, run_cohort

SHOWN = ("precision@1", "precision@5", "mAP")


@dataclass(frozen=True, slots=True)
class Described:
    """An encoder, and what it costs."""

    name: str
    statement: str
    runtime: str
    dimension: int
    file_bytes: int | None  # None: it has no file
    latency: Latency


@dataclass(frozen=True, slots=True)
class Scored:
    """What one finding's scores of one kind, by neighbours or by probe, are worth for each encoder."""

    scorer: str  # neighbours, probe
    comparison: Comparison
    gaps: Mapping[str, tuple[Gaps, ...]]  # encoder to its gaps by sex and by age


@dataclass(frozen=True, slots=True)
class FindingComparison:
    """All encoders on one finding."""

    finding: str
    rows: int
    positives: int
    patients: int
    random_precision: float  # of neighbours drawn at random: how often two images have the same outcome
    scored: tuple[Scored, ...]
    retrieval: Mapping[str, tuple[RetrievalMetric, ...]]


@dataclass(frozen=True, slots=True)
class EncoderComparison:
    """What was measured."""

    cohort: str
    k: int
    seed: int
    encoders: tuple[Described, ...]
    findings: tuple[FindingComparison, ...]


def compare_encoders(
    cohort: Cohort, encoders: Sequence[Encoder], cache: Path, *, k: int, seed: int, workers: int, progress: Progress
) -> EncoderComparison:
    """Returns the comparison; embeddings of an earlier run are taken from the cache.

    Raises:
        InvalidInput: Fewer than two encoders, or two of one name.
    """
    names = [encoder.card.name for encoder in encoders]
    if len(names) < 2 or len(set(names)) < len(names):
        raise InvalidInput(f"expected two or more encoders of different names, got {', '.join(names) or 'none'}")
    runs = {}
    for encoder in encoders:
        runs[encoder.card.name] = run_cohort(
            cohort, encoder, cache, k=k, seed=seed, workers=workers, progress=_named(encoder.card.name, progress)
        )
    findings = tuple(_finding(place, runs) for place in range(len(cohort.findings)))
    return EncoderComparison(cohort.name, k, seed, tuple(_described(cohort, each) for each in encoders), findings)


def _named(name: str, progress: Progress) -> Progress:
    return lambda stage, done, total: progress(f"{name}: {stage}", done, total)


def _described(cohort: Cohort, encoder: Encoder) -> Described:
    card, file = encoder.card, encoder.card.onnx_path
    cost = latency(cohort.files, [image.name for image in cohort.images], encoder)
    size = file.stat().st_size if file.is_file() else None
    return Described(card.name, card.statement, encoder.runtime, card.dimension, size, cost)


def _finding(place: int, runs: Mapping[str, CohortResult]) -> FindingComparison:
    results = {name: run.results[place] for name, run in runs.items()}
    rows = _shared(results)
    images = list(rows.values())
    finding = next(iter(results.values())).finding.name
    truth = np.array([image.truths[finding] for image in images])
    patient = [image.patient for image in images]
    kinds = {
        "neighbours": {name: _on(each, each.neighbours, rows) for name, each in results.items()},
        "probe": {name: _on(each, each.probe, rows) for name, each in results.items()},
    }
    return FindingComparison(
        finding,
        rows=len(images),
        positives=int(truth.sum()),
        patients=len(set(patient)),
        random_precision=float(truth.mean() ** 2 + (1.0 - truth.mean()) ** 2),
        scored=tuple(_scored(kind, truth, scores, images) for kind, scores in kinds.items()),
        retrieval={name: tuple(m for m in each.retrieval if m.name in SHOWN) for name, each in results.items()},
    )


def _shared(results: Mapping[str, FindingResult]) -> dict[str, CohortImage]:
    """Returns the images that every encoder has both scores of, in the cohort's order."""
    first = next(iter(results.values()))
    known = [
        {
            image.name
            for image, a, b in zip(each.images, each.neighbours, each.probe, strict=True)
            if np.isfinite(a) and np.isfinite(b)
        }
        for each in results.values()
    ]
    return {image.name: image for image in first.images if image.name in set.intersection(*known)}


def _on(result: FindingResult, scores: NDArray[np.float64], rows: Mapping[str, CohortImage]) -> NDArray[np.float64]:
    found = {image.name: score for image, score in zip(result.images, scores, strict=True)}
    return np.array([found[name] for name in rows], dtype=np.float64)


def _scored(
    scorer: str, truth: NDArray[np.bool_], scores: Mapping[str, NDArray[np.float64]], images: Sequence[CohortImage]
) -> Scored:
    patient = [image.patient for image in images]
    groupings: tuple[Grouping, ...] = (
        by_sex([image.sex for image in images]),
        by_age(ages_of([image.age for image in images])),
    )
    gaps = {
        name: tuple(auroc_gaps(truth, score, grouping, patient=patient) for grouping in groupings)
        for name, score in scores.items()
    }
    return Scored(scorer, compare(truth, scores, patient=patient), gaps)
