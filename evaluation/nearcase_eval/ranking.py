"""How well scores rank: AUROC, ROC points, partial AUROC and average precision, as plain weighted numbers.

Each function takes case weights, so that a bootstrap replicate is one call. None means "not defined on these rows".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from nearcase.errors import InvalidInput
from nearcase_eval.sample import Bools, Floats, numbers, same_length, sample_of


@dataclass(frozen=True, slots=True)
class Curve:
    """Cumulative weights when everything at or above each distinct score is called positive, strictest first."""

    threshold: Floats  # (T,) descending; the first is +inf: nothing is called
    true_positive: Floats  # (T,) weight
    false_positive: Floats  # (T,) weight

    @property
    def sensitivity(self) -> Floats:
        """(T,) share of the positives called; NaN without positives."""
        return _share(self.true_positive)

    @property
    def false_positive_rate(self) -> Floats:
        """(T,) share of the negatives called; NaN without negatives."""
        return _share(self.false_positive)


def midranks(values: Floats) -> Floats:
    """Returns ranks from 1, (N,); equal values share the mean of their ranks."""
    order = np.argsort(values, kind="stable")
    _, first, counts = np.unique(values[order], return_index=True, return_counts=True)
    ranks = np.empty(values.size, dtype=np.float64)
    ranks[order] = np.repeat(first + (counts + 1) / 2.0, counts)
    return ranks


def curve(y_true: ArrayLike, y_score: ArrayLike, *, weights: ArrayLike | None = None) -> Curve:
    """Returns every point of the ROC and precision-recall curves, tied scores as one step.

    Raises:
        InvalidInput: The arrays do not fit, or a weight is negative.
    """
    data = sample_of(y_true, y_score)
    return curve_of(data.truth, data.score, _weights(weights, data.n))


def curve_of(truth: Bools, score: Floats, weight: Floats | None = None) -> Curve:
    """Returns the curve of arrays that were checked before; without weights the counts are exact integers."""
    order = np.argsort(-score, kind="stable")
    ranked, positive = score[order], truth[order]
    gain = np.where(positive, 1.0, 0.0) if weight is None else np.where(positive, weight[order], 0.0)
    loss = np.where(positive, 0.0, 1.0) if weight is None else np.where(positive, 0.0, weight[order])
    last = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True)) if ranked.size else np.zeros(0, dtype=np.int64)
    return Curve(
        np.append(np.inf, ranked[last]), np.append(0.0, np.cumsum(gain)[last]), np.append(0.0, np.cumsum(loss)[last])
    )


def area(y_true: ArrayLike, y_score: ArrayLike, *, weights: ArrayLike | None = None) -> float | None:
    """Returns the AUROC: the chance that a positive outranks a negative, ties counting one half (Mann-Whitney)."""
    return area_under(curve(y_true, y_score, weights=weights))


def area_under(points: Curve) -> float | None:
    """Returns the AUROC of a curve; None unless both classes have weight."""
    positive, negative = points.true_positive[-1], points.false_positive[-1]
    if positive <= 0.0 or negative <= 0.0:
        return None
    return float(np.trapezoid(points.true_positive, points.false_positive) / positive / negative)


def partial_area(
    y_true: ArrayLike, y_score: ArrayLike, *, max_fpr: float = 0.1, weights: ArrayLike | None = None
) -> float | None:
    """Returns the AUROC over specificity 1 - max_fpr to 1, standardised so that 0.5 is chance and 1 is perfect.

    Source: McClish 1989. Below-chance partial areas fall under 0.5, as in pROC with `partial.auc.correct`.

    Raises:
        InvalidInput: max_fpr is not in (0, 1], or the arrays do not fit.
    """
    if not 0.0 < max_fpr <= 1.0:
        raise InvalidInput(f"expected max_fpr in (0, 1], got {max_fpr}", field="max_fpr")
    points = curve(y_true, y_score, weights=weights)
    if area_under(points) is None:
        return None
    fpr, tpr = points.false_positive_rate, points.sensitivity
    inside = int(np.searchsorted(fpr, max_fpr, side="right"))
    edge = float(np.interp(max_fpr, fpr[inside - 1 : inside + 1], tpr[inside - 1 : inside + 1]))
    raw = float(np.trapezoid(np.append(tpr[:inside], edge), np.append(fpr[:inside], max_fpr)))
    chance, best = max_fpr**2 / 2.0, max_fpr
    return (1.0 + (raw - chance) / (best - chance)) / 2.0


def average_precision(y_true: ArrayLike, y_score: ArrayLike, *, weights: ArrayLike | None = None) -> float | None:
    """Returns the area under precision against recall by the step rule, never the (optimistic) trapezoid.

    None without positives. Compare it with the prevalence, and never across groups of different prevalence.
    """
    return average_precision_under(curve(y_true, y_score, weights=weights))


def average_precision_under(points: Curve) -> float | None:
    """Returns the average precision of a curve; None without positives."""
    total = points.true_positive[-1]
    called = points.true_positive[1:] + points.false_positive[1:]
    if total <= 0.0:
        return None
    precision = np.divide(points.true_positive[1:], called, out=np.zeros_like(called), where=called > 0.0)
    return float(np.sum(np.diff(points.true_positive) * precision) / total)


def _share(cumulative: Floats) -> Floats:
    total = cumulative[-1]
    return cumulative / total if total > 0.0 else np.full(cumulative.shape, np.nan)


def _weights(weights: ArrayLike | None, n: int) -> Floats | None:
    if weights is None:
        return None
    found = numbers(weights, "weights")
    same_length(n, found.size, "weights")
    if np.any(found < 0.0):
        raise InvalidInput("expected weights of 0 or more, got negative ones", field="weights")
    return found
