"""DeLong's placements: for each row the share of the other class that it outranks (DeLong 1988, Biometrics 44:837).

Computed from two sorts (Sun and Xu 2014 use midranks to the same end), in exact counts; pROC is the reference.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from nearcase.errors import InvalidInput
from nearcase_eval.sample import Bools, Floats, Ints, numbers, outcomes, same_length


@dataclass(frozen=True, slots=True)
class Ranked:
    """Where each row of a class stands among the sorted rows of the other, so that any part of them can be placed."""

    positives: Span  # of the positives among the negatives
    negatives: Span

    def within(self, positive: Bools | None = None, negative: Bools | None = None) -> tuple[float, Floats, Floats]:
        """Returns placements (see there) of the chosen positives (m,) and negatives (n,) to each other alone."""
        outranked = self.positives.twice_below(self.negatives.order, negative)
        below = self.negatives.twice_below(self.positives.order, positive)
        outranked = outranked if positive is None else outranked[positive]
        below = below if negative is None else below[negative]
        m, n = outranked.size, below.size
        value = int(outranked.sum()) / (2.0 * m * n)
        return value, outranked / (2.0 * n), (2 * m - below) / (2.0 * m)


@dataclass(frozen=True, slots=True)
class Span:
    """Rows of a class in row order: how they sort, and how many of the other class are below and not above them."""

    order: Ints
    below: Ints
    upto: Ints

    def twice_below(self, order: Ints, chosen: Bools | None) -> Ints:
        """Returns 2 x (chosen others below) + (chosen others equal); order is that of the others."""
        if chosen is None:
            return self.below + self.upto
        counts = np.append(0, np.cumsum(chosen[order]))
        found: Ints = counts[self.below] + counts[self.upto]
        return found


def ranked(truth: Bools, score: Floats) -> Ranked:
    """Returns the ranks of the two classes, from one sort of each."""
    positive, negative = score[truth], score[~truth]
    upward, downward = np.argsort(positive), np.argsort(negative)
    (below, upto), (under, within) = _spans(positive[upward], negative[downward])
    spans = [np.empty(each.size, dtype=np.int64) for each in (below, upto, under, within)]
    for span, order, found in zip(
        spans, (upward, upward, downward, downward), (below, upto, under, within), strict=True
    ):
        span[order] = found
    return Ranked(Span(upward, spans[0], spans[1]), Span(downward, spans[2], spans[3]))


def placements(truth: Bools, score: Floats) -> tuple[float, Floats, Floats]:
    """Returns (AUROC, V10 (m,), V01 (n,)) in row order; both classes must be there.

    V10 is the share of negatives below a positive, V01 the share of positives above a negative; ties count one half.
    """
    return ranked(truth, score).within()


def covariance(y_true: ArrayLike, scores: ArrayLike) -> tuple[Floats, Floats]:
    """Returns (AUROCs (K,), covariance (K, K)) of K scores of the same independent rows, each row (N,) of scores.

    This is the textbook S10/m + S01/n; the clustered module gives the same numbers when each row is a patient.

    Raises:
        InvalidInput: A class has fewer than two rows, or the arrays do not fit.
    """
    truth, table = outcomes(y_true), np.atleast_2d(np.asarray(scores))
    if min(int(truth.sum()), int((~truth).sum())) < 2:
        raise InvalidInput("expected at least two rows of each class for a covariance")
    found = []
    for row in table:
        same_length(truth.size, row.size, "scores")
        found.append(placements(truth, numbers(row, "scores")))
    above, below = np.array([each[1] for each in found]), np.array([each[2] for each in found])
    s10, s01 = np.atleast_2d(np.cov(above)), np.atleast_2d(np.cov(below))
    return np.array([each[0] for each in found]), s10 / above.shape[1] + s01 / below.shape[1]


def _spans(first: Floats, second: Floats) -> tuple[tuple[Ints, Ints], tuple[Ints, Ints]]:
    """Returns, for each of two sorted arrays, (values of the other below, values of the other not above).

    Only the shorter array is searched for; the longer one's counts follow, since a_i <= b_j exactly when no more than
    j of the b are below a_i.
    """
    if first.size > second.size:
        found, other = _spans(second, first)
        return other, found
    below, upto = np.searchsorted(second, first, "left"), np.searchsorted(second, first, "right")
    reached = [np.cumsum(np.bincount(each, minlength=second.size + 1))[: second.size] for each in (upto, below)]
    return (below, upto), (reached[0], reached[1])
