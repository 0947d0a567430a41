"""AUROC of votes with an old and a new encoder, on the same queries, with intervals over patients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nearcase.types import Interval

if TYPE_CHECKING:
    from numpy.typing import NDArray

REPEATS = 400
SEED = 0
LEAST_PATIENTS = 5
"""Of each kind: with fewer, a bootstrap interval is too narrow to be honest."""

MAX_VALUES = 10


@dataclass(frozen=True, slots=True)
class Area:
    """One value of a label against all others."""

    value: str
    positive_count: int  # queries
    negative_count: int
    old: Interval
    new: Interval
    difference: Interval  # new minus old, on the same resamples


@dataclass(frozen=True, slots=True)
class Areas:
    """What areas are computed from: Q queries, V values."""

    values: tuple[str, ...]
    truth: NDArray[np.int32]  # (Q,) places in values
    old: NDArray[np.float64]  # (Q, V) shares
    new: NDArray[np.float64]
    patients: NDArray[np.int64]  # (Q,)


def areas(given: Areas) -> tuple[Area, ...]:
    """Returns the areas of the most frequent values; of two values the second alone, as both say the same."""
    counts = np.bincount(given.truth, minlength=len(given.values))
    places = [1] if len(given.values) == 2 else sorted(np.argsort(-counts, kind="stable")[:MAX_VALUES].tolist())
    found = (_area(given, place) for place in places)
    return tuple(area for area in found if area is not None)


def auroc(scores: NDArray[np.float64], positive: NDArray[np.bool_]) -> float:
    """Returns the chance that a positive scores above a negative, ties counting half; NaN without both kinds."""
    count = int(positive.sum())
    others = len(positive) - count
    if not count or not others:
        return float("nan")
    _, place, sizes = np.unique(scores, return_inverse=True, return_counts=True)
    ends = np.cumsum(sizes)
    ranks = (ends - (sizes - 1) / 2.0)[place]  # mean rank of equal scores, from 1
    return float((ranks[positive].sum() - count * (count + 1) / 2.0) / (count * others))


def _area(given: Areas, place: int) -> Area | None:
    positive = given.truth == place
    kinds = [len(np.unique(given.patients[kind])) for kind in (positive, ~positive)]
    if min(kinds) < LEAST_PATIENTS:
        return None
    old, new = given.old[:, place], given.new[:, place]
    draws = np.array([_draw(rows, old, new, positive) for rows in _resamples(given.patients)])
    draws = draws[np.isfinite(draws).all(axis=1)]
    ends = np.percentile(np.column_stack([draws, draws[:, 1] - draws[:, 0]]), [2.5, 97.5], axis=0)  # (2, 3)
    points = auroc(old, positive), auroc(new, positive)
    intervals = [
        Interval(point, float(ends[0, at]), float(ends[1, at]))
        for at, point in enumerate((*points, points[1] - points[0]))
    ]
    return Area(given.values[place], int(positive.sum()), int((~positive).sum()), *intervals)


def _draw(
    rows: NDArray[np.int64], old: NDArray[np.float64], new: NDArray[np.float64], positive: NDArray[np.bool_]
) -> tuple[float, float]:
    return auroc(old[rows], positive[rows]), auroc(new[rows], positive[rows])


def _resamples(patients: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Rows of resampled patients, with all of each patient's queries."""
    order = np.argsort(patients, kind="stable")
    _, starts = np.unique(patients[order], return_index=True)
    rows = np.split(order, starts[1:])
    rng = np.random.default_rng(SEED)
    return [np.concatenate([rows[each] for each in rng.integers(0, len(rows), len(rows))]) for _ in range(REPEATS)]
