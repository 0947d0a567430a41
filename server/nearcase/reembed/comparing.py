"""What another encoder changes: which neighbours are found, and what they say of each label.

All of it is leave-one-patient-out: a query's own patient, study, series and copies are never its neighbours, as in a
search. Votes are softmax(100 x cosine) over the nearest cases that have the label (arXiv 2410.06542).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nearcase.reembed.areas import Area, Areas, areas
from nearcase.reembed.pairs import Label, Pairs
from nearcase.types import Interval

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nearcase.types import Embedding

K = 10
TEMPERATURE = 100.0
BLOCK_ELEMENTS = 2**24
"""Similarities held at once, of queries to cases: 64 MiB."""

LEAST_QUERIES = 10
"""Labels with fewer labelled queries are not told: their figures would be noise."""


@dataclass(frozen=True, slots=True)
class Overlap:
    """How many of the nearest cases both encoders find."""

    mean: Interval  # share of the k nearest, 0 to 1; normal interval over patients
    query_count: int
    patient_count: int
    k: int


@dataclass(frozen=True, slots=True)
class LabelChange:
    """What the vote over neighbours says of one label, with the old encoder and the new one."""

    name: str
    value_count: int
    query_count: int  # labelled queries with a labelled neighbour
    patient_count: int
    changed_count: int  # queries whose most likely value is another
    old_correct_count: int  # queries whose most likely value is their own
    new_correct_count: int
    areas: tuple[Area, ...]  # one for each value against the others; one alone where there are two values


@dataclass(frozen=True, slots=True)
class Comparison:
    """The figures of a comparison."""

    overlap: Overlap | None  # None where no query has a neighbour
    labels: tuple[LabelChange, ...]
    case_count: int
    query_count: int


def compare(
    pairs: Pairs, *, sample: int = 1000, k: int = K, seed: int = 0, advance: Callable[[int], None] = lambda count: None
) -> Comparison:
    """Returns what changes for a sample of the cases as queries; the same seed gives the same figures.

    Args:
        pairs: All cases that both libraries hold.
        sample: Most queries.
        k: Neighbours of each.
        seed: Chooses the queries.
        advance: Is told how many queries were worked off.
    """
    count = len(pairs.case_ids)
    queries = np.sort(np.random.default_rng(seed).permutation(count)[:sample])
    nearest = [_Nearest(pairs, queries, matrix, k) for matrix in (pairs.old, pairs.new)]
    step = max(1, BLOCK_ELEMENTS // max(count, 1))
    for start in range(0, len(queries), step):
        for each in nearest:
            each.work(slice(start, start + step))
        advance(len(queries[start : start + step]))
    old, new = nearest
    labels = (
        _label_change(pairs, queries, label, old.votes[at], new.votes[at]) for at, label in enumerate(pairs.labels)
    )
    told = tuple(change for change in labels if change is not None)
    return Comparison(_overlap(pairs, queries, old.found, new.found, k), told, count, len(queries))


class _Nearest:
    """The nearest cases of each query in one space, and their votes for each label."""

    def __init__(self, pairs: Pairs, queries: NDArray[np.int64], matrix: Embedding, k: int) -> None:
        self._pairs, self._queries, self._matrix, self._k = pairs, queries, matrix, k
        self.found = np.full((len(queries), k), -1, np.int64)  # (Q, k) places of cases, -1 beyond the last
        self.votes = [np.zeros((len(queries), len(label.values))) for label in pairs.labels]  # each (Q, V)

    def work(self, rows: slice) -> None:
        """Fills some rows."""
        queries = self._queries[rows]
        similar = self._matrix[queries] @ self._matrix.T  # (q, N)
        similar[_same_origin(self._pairs.origins, queries)] = -np.inf
        self.found[rows], _ = top(similar, self._k)
        for votes, label in zip(self.votes, self._pairs.labels, strict=True):
            labelled = np.where(label.codes >= 0, similar, -np.inf)
            votes[rows] = shares(*top(labelled, self._k), label)


def top(similar: Embedding, k: int) -> tuple[NDArray[np.int64], Embedding]:
    """Returns (q, k) places of the largest of each row, largest first, and their values; -1 beyond the last."""
    take = min(k, similar.shape[1])
    part = np.argpartition(-similar, take - 1, axis=1)[:, :take] if take else np.empty((len(similar), 0), np.int64)
    order = np.argsort(-np.take_along_axis(similar, part, axis=1), axis=1, kind="stable")
    places = np.take_along_axis(part, order, axis=1)
    values = np.take_along_axis(similar, places, axis=1)
    room = ((0, 0), (0, k - take))
    values = np.pad(values, room, constant_values=-np.inf)
    return np.where(np.isfinite(values), np.pad(places, room, constant_values=-1), -1), values


def shares(places: NDArray[np.int64], similar: Embedding, label: Label) -> NDArray[np.float64]:
    """Returns (q, V) shares of each value among the neighbours; a row of zeros where there are none."""
    there = places >= 0
    best = np.max(np.where(there, similar, -np.inf), axis=1, keepdims=True, initial=-1.0)
    weights = np.where(there, np.exp(TEMPERATURE * (np.where(there, similar, -1.0) - best)), 0.0)  # (q, k)
    codes = label.codes[places]
    votes = np.stack([(weights * (codes == value)).sum(axis=1) for value in range(len(label.values))], axis=1)
    total = votes.sum(axis=1, keepdims=True)
    part: NDArray[np.float64] = np.divide(votes, total, out=np.zeros_like(votes), where=total > 0)
    return part


def _same_origin(origins: NDArray[np.int64], queries: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(q, N) whether a case has the origin of a query; a query has its own."""
    same = np.zeros((len(queries), len(origins)), bool)
    for column in range(origins.shape[1]):
        theirs, ours = origins[:, column], origins[queries, column]
        same |= (ours[:, None] == theirs[None, :]) & (ours != 0)[:, None]
    same[np.arange(len(queries)), queries] = True
    return same


def _overlap(
    pairs: Pairs, queries: NDArray[np.int64], old: NDArray[np.int64], new: NDArray[np.int64], k: int
) -> Overlap | None:
    possible = (old >= 0).sum(axis=1)
    asked = possible > 0
    if not asked.any():
        return None
    both = ((old[:, :, None] == new[:, None, :]) & (old >= 0)[:, :, None]).any(axis=2).sum(axis=1)
    part = both[asked] / possible[asked]
    patients = pairs.patients[queries][asked]
    return Overlap(_mean(part, patients), int(asked.sum()), len(np.unique(patients)), k)


def _mean(values: NDArray[np.float64], patients: NDArray[np.int64]) -> Interval:
    """The mean with a normal 95 % interval whose variance is that of sums over patients (a ratio estimator)."""
    mean = float(values.mean())
    _, place = np.unique(patients, return_inverse=True)
    residuals = np.bincount(place, weights=values - mean)
    groups = len(residuals)
    variance = (residuals**2).sum() / len(values) ** 2 * (groups / (groups - 1) if groups > 1 else np.inf)
    half = 1.959964 * float(np.sqrt(variance)) if np.isfinite(variance) else 1.0
    return Interval(mean, max(0.0, mean - half), min(1.0, mean + half))


def _label_change(
    pairs: Pairs, queries: NDArray[np.int64], label: Label, old: NDArray[np.float64], new: NDArray[np.float64]
) -> LabelChange | None:
    truth = label.codes[queries]
    asked = (truth >= 0) & (old.sum(axis=1) > 0) & (new.sum(axis=1) > 0)
    if len(label.values) < 2 or asked.sum() < LEAST_QUERIES:
        return None
    old, new, truth, patients = old[asked], new[asked], truth[asked], pairs.patients[queries][asked]
    before, after = old.argmax(axis=1), new.argmax(axis=1)
    return LabelChange(
        name=label.name,
        value_count=len(label.values),
        query_count=int(asked.sum()),
        patient_count=len(np.unique(patients)),
        changed_count=int((before != after).sum()),
        old_correct_count=int((before == truth).sum()),
        new_correct_count=int((after == truth).sum()),
        areas=areas(Areas(label.values, truth, old, new, patients)),
    )
