"""How good the retrieved cases are: precision, recall, average precision and nDCG, averaged over queries.

`relevance` is (Q, K), one row per query in the order of retrieval: 0 for a case that is not relevant, 1 or a higher
grade for one that is, NaN where fewer than K cases were found. `total` is how many relevant cases the library holds for
each query (Q,), the query's own patient left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from nearcase.errors import InvalidInput
from nearcase_eval.estimate import Estimate
from nearcase_eval.means import estimate_of, mean_of
from nearcase_eval.sample import Floats, numbers, patient_codes, same_length

MIR_CUTOFFS = (3, 5, 10)
"""P@3, P@5 and P@10 of 3D-MIR (arXiv 2311.13752)."""


@dataclass(frozen=True, slots=True)
class RetrievalMetric:
    """The mean of a metric over the queries for which it is defined."""

    name: str  # for example precision@5
    estimate: Estimate
    undefined: int  # queries left out: nothing relevant in the library, or nothing retrieved


def retrieval(
    relevance: ArrayLike,
    total: ArrayLike,
    *,
    cutoffs: Sequence[int] = (1, 3, 5, 10),
    patient: ArrayLike | None = None,
    level: float = 0.95,
) -> tuple[RetrievalMetric, ...]:
    """Returns precision@k, recall@k and nDCG@k at each cutoff, then mAP over all K, with intervals over patients.

    Grades above 0 count as relevant, except in nDCG, whose ideal ranking holds grade 1 for relevant cases that were
    not retrieved.

    Raises:
        InvalidInput: Shapes do not fit, a cutoff is not in 1..K, or a query found more relevant cases than exist.
    """
    grades, counts = _checked(relevance, total, cutoffs)
    columns: dict[str, Floats] = {}
    for k in cutoffs:
        columns[f"precision@{k}"] = precision_at(grades, k)
        columns[f"recall@{k}"] = recall_at(grades, counts, k)
        columns[f"ndcg@{k}"] = ndcg_at(grades, counts, k)
    columns["mAP"] = average_precisions(grades, counts)
    return _means(columns, patient, level)


def mir_metrics(
    relevance: ArrayLike, *, patient: ArrayLike | None = None, level: float = 0.95
) -> tuple[RetrievalMetric, ...]:
    """Returns the metrics of 3D-MIR over the first ten volumes: P@3, P@5, P@10 and its AP.

    Its AP divides by the relevant volumes that were retrieved, not by those that exist, and is 0 without any (the
    published notebooks of abachaa/3D-MIR); it is not comparable with mAP. P@k is over the volumes that were found.

    Raises:
        InvalidInput: relevance has no two axes.
    """
    grades = _grades(relevance)[:, :10]
    found = np.nansum(grades > 0.0, axis=1).astype(np.float64)
    divided = average_precisions(grades, np.maximum(found, 1.0))
    columns = {f"P@{k}": precision_at(grades, k) for k in MIR_CUTOFFS} | {"AP": divided}
    return _means(columns, patient, level)


def precision_at(grades: Floats, k: int) -> Floats:
    """Returns the relevant share of the first k, (Q,); of those found, when fewer; NaN when none was."""
    first = grades[:, :k]
    found = np.sum(~np.isnan(first), axis=1)
    return _divided(np.sum(first > 0.0, axis=1), found)


def recall_at(grades: Floats, total: Floats, k: int) -> Floats:
    """Returns the share of all relevant cases that is among the first k, (Q,); NaN without any."""
    return _divided(np.sum(grades[:, :k] > 0.0, axis=1), total)


def average_precisions(grades: Floats, total: Floats) -> Floats:
    """Returns sum of precision at each relevant case / min(all relevant cases, K), (Q,); NaN without any."""
    hit = grades > 0.0
    ranks = np.arange(1, grades.shape[1] + 1)
    summed = np.sum(np.where(hit, np.cumsum(hit, axis=1) / ranks, 0.0), axis=1)
    return _divided(summed, np.minimum(total, grades.shape[1]))


def ndcg_at(grades: Floats, total: Floats, k: int) -> Floats:
    """Returns discounted gain / that of the ideal order, (Q,), log2 discount (Jarvelin and Kekalainen 2002)."""
    discount = 1.0 / np.log2(np.arange(2, k + 2))
    known = np.nan_to_num(grades)
    gain = known[:, :k] @ discount[: known[:, :k].shape[1]]
    return _divided(gain, _ideal(known, total, k) @ discount)


def _ideal(known: Floats, total: Floats, k: int) -> Floats:
    unseen = np.maximum(total - np.sum(known > 0.0, axis=1), 0.0)
    extra = np.where(np.arange(k) < unseen[:, None], 1.0, 0.0)
    return -np.sort(-np.hstack([known, extra]), axis=1)[:, :k]


def _divided(top: ArrayLike, bottom: ArrayLike) -> Floats:
    above, below = np.asarray(top, dtype=np.float64), np.asarray(bottom, dtype=np.float64)
    found: Floats = np.divide(above, below, out=np.full(above.shape, np.nan), where=below > 0.0)
    return found


def _means(columns: dict[str, Floats], patient: ArrayLike | None, level: float) -> tuple[RetrievalMetric, ...]:
    queries = next(iter(columns.values())).size
    codes, patients = patient_codes(patient, queries)
    found = []
    for name, values in columns.items():
        kept = np.isfinite(values)
        estimate = estimate_of(mean_of(values[kept], codes[kept], patients), "mean over queries", level=level)
        found.append(RetrievalMetric(name, estimate, int(np.count_nonzero(~kept))))
    return tuple(found)


def _grades(relevance: ArrayLike) -> Floats:
    grades = np.asarray(relevance, dtype=np.float64)
    if grades.ndim != 2:
        raise InvalidInput(f"expected relevance of shape (queries, cases), got {grades.shape}", field="relevance")
    return grades


def _checked(relevance: ArrayLike, total: ArrayLike, cutoffs: Sequence[int]) -> tuple[Floats, Floats]:
    grades, counts = _grades(relevance), numbers(total, "total")
    same_length(grades.shape[0], counts.size, "total")
    if any(not 1 <= k <= grades.shape[1] for k in cutoffs):
        raise InvalidInput(f"expected cutoffs in 1..{grades.shape[1]}, got {list(cutoffs)}", field="cutoffs")
    if over := int(np.count_nonzero(np.sum(grades > 0.0, axis=1) > counts)):
        raise InvalidInput(f"expected at most `total` relevant cases, {over} queries found more", field="total")
    return grades, counts
