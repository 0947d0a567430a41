"""AUROCs of many groups under many patient weights in one pass over scores that were sorted once.

A replicate of the patient bootstrap, or a permutation of group labels, is a small whole weight for each patient. The
concordance of a group is a whole number too,

    2 C = sum over positives i of w_i (N_<(i) + N_<=(i)),    N = weight of the negatives below, and not above, i

so it is computed in int64, exactly, and the two ways to compute it (numba when it is installed, NumPy) give the same
bits. Weights are uint8 and a patient's replicates lie side by side, so that one look-up serves all of a batch.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nearcase_eval.sample import Bools, Floats, Ints, Sample

Weights = NDArray[np.uint8]
"""(P, B): of each patient in each replicate."""

WORTH_COMPILING = 20_000_000
"""Rows times replicates below which NumPy is done before numba is imported and its code loaded."""

CHUNK_CELLS = 4_000_000
"""Cells of the NumPy path's running sums: 32 MB, so that memory does not grow with the batch."""


@dataclass(frozen=True, slots=True)
class Segment:
    """The rows of one group, positives and negatives each in ascending order of score."""

    positive: Ints  # (m,) patient codes
    negative: Ints  # (n,) patient codes
    below: Ints  # (m,) negatives with a lower score
    upto: Ints  # (m,) negatives with a score that is not higher

    @property
    def n(self) -> int:
        """Rows."""
        return int(self.positive.size + self.negative.size)


def segment_of(data: Sample, mask: Bools | None = None) -> Segment:
    """Returns the sorted rows (of the mask)."""
    part = data if mask is None else data.rows(mask)
    positive, negative = part.score[part.truth], part.score[~part.truth]
    up, low = np.argsort(positive, kind="stable"), np.argsort(negative, kind="stable")
    ranked, others = positive[up], negative[low]
    return Segment(
        part.patient[part.truth][up],
        part.patient[~part.truth][low],
        np.searchsorted(others, ranked, "left"),
        np.searchsorted(others, ranked, "right"),
    )


def weighted_areas(segments: Sequence[Segment], weights: Weights, *, compiled: bool | None = None) -> Floats:
    """Returns the AUROC of each segment in each replicate, (S, B); NaN where a class has no weight.

    Args:
        segments: Groups of one sample; they may overlap.
        weights: Of its patients.
        compiled: True for numba, False for NumPy; None takes numba when it is installed and the work is worth it.
    """
    one = _choose(sum(part.n for part in segments) * weights.shape[1], compiled)
    return np.array([_area(*one(part, weights)) for part in segments]).reshape(len(segments), weights.shape[1])


def has_numba() -> bool:
    """Returns whether the accelerator is installed, without importing it."""
    return importlib.util.find_spec("numba") is not None


Counts = tuple[Ints, Ints, Ints]
"""(B,) each: twice the concordance, the weight of the positives, the weight of the negatives."""


def _choose(work: int, compiled: bool | None) -> Callable[[Segment, Weights], Counts]:
    if compiled is None:
        compiled = work >= WORTH_COMPILING and has_numba()
    return _compiled_counts if compiled else _numpy_counts


def _area(twice: Ints, positive: Ints, negative: Ints) -> Floats:
    pairs = 2.0 * positive.astype(np.float64) * negative.astype(np.float64)
    shares: Floats = np.divide(twice, pairs, out=np.full(pairs.shape, np.nan), where=pairs > 0.0)
    return shares


def _compiled_counts(part: Segment, weights: Weights) -> Counts:
    found: Counts = _kernel()(part.positive, part.negative, part.below, part.upto, weights)
    return found


def _numpy_counts(part: Segment, weights: Weights) -> Counts:
    width = max(1, CHUNK_CELLS // max(part.n, 1))
    pieces = [_numpy_chunk(part, weights[:, start : start + width]) for start in range(0, weights.shape[1], width)]
    twice, positive, negative = (np.concatenate(each) for each in zip(*pieces, strict=True))
    return twice, positive, negative


def _numpy_chunk(part: Segment, weights: Weights) -> Counts:
    running = np.zeros((part.negative.size + 1, weights.shape[1]), dtype=np.int64)
    np.cumsum(weights[part.negative], axis=0, dtype=np.int64, out=running[1:])
    gained = weights[part.positive].astype(np.int64)
    twice = np.einsum("mb,mb->b", gained, running[part.below] + running[part.upto])
    return twice, gained.sum(axis=0), running[-1]


@functools.cache
def _kernel() -> Callable[..., Any]:
    """The pass in machine code, compiled on first use and kept beside this file where that can be written."""
    import numba

    try:
        return numba.njit(_pass, nogil=True, cache=True)
    except RuntimeError:  # neither this folder nor a home folder can be written: compile in each process
        return numba.njit(_pass, nogil=True)


def _pass(positive: Ints, negative: Ints, below: Ints, upto: Ints, weights: Weights) -> Counts:
    """One walk up the scores: `lower` is the negatives' weight below the positive, `tied` at its score."""
    width = weights.shape[1]
    lower, tied = np.zeros(width, np.int64), np.zeros(width, np.int64)
    twice, total = np.zeros(width, np.int64), np.zeros(width, np.int64)
    start = end = 0
    for i in range(positive.size):
        if below[i] != start:  # a higher score than before: what was tied is now below
            lower += tied
            tied[:] = 0
            while end < below[i]:
                lower += weights[negative[end]]
                end += 1
            start = end
        while end < upto[i]:
            tied += weights[negative[end]]
            end += 1
        row = weights[positive[i]]
        for b in range(width):
            twice[b] += np.int64(row[b]) * (2 * lower[b] + tied[b])
            total[b] += row[b]
    lower += tied
    for j in range(end, negative.size):
        lower += weights[negative[j]]
    return twice, total, lower
