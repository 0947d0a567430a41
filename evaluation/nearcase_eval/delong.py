"""DeLong's placements: for each row the share of the other class that it outranks (DeLong 1988, Biometrics 44:837).

Computed from two sorts (Sun and Xu 2014 use midranks to the same end), in exact counts; pROC is the reference.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from nearcase.errors import InvalidInput
from nearcase_eval.sample import Bools, Floats, Ints, numbers, outcomes, same_length


def placements(truth: Bools, score: Floats) -> tuple[float, Floats, Floats]:
    """Returns (AUROC, V10 (m,), V01 (n,)) in row order; both classes must be there.

    V10 is the share of negatives below a positive, V01 the share of positives above a negative; ties count one half.
    """
    positive, negative = score[truth], score[~truth]
    upward, downward = np.argsort(positive), np.argsort(negative)
    outranked = np.empty(positive.size, dtype=np.int64)
    outranking = np.empty(negative.size, dtype=np.int64)
    outranked[upward], below = _twice_counts(positive[upward], negative[downward])
    outranking[downward] = 2 * positive.size - below
    value = int(outranked.sum()) / (2.0 * positive.size * negative.size)
    return value, outranked / (2.0 * negative.size), outranking / (2.0 * positive.size)


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


def _twice_counts(first: Floats, second: Floats) -> tuple[Ints, Ints]:
    """Returns, for each of two sorted arrays, 2 x (values of the other below) + (values of the other equal).

    Only the shorter array is searched for; the longer one's counts follow, since a_i <= b_j exactly when no more than
    j of the b are below a_i.
    """
    if first.size > second.size:
        found, other = _twice_counts(second, first)
        return other, found
    below, upto = np.searchsorted(second, first, "left"), np.searchsorted(second, first, "right")
    counts = np.bincount(below, minlength=second.size + 1) + np.bincount(upto, minlength=second.size + 1)
    return below + upto, np.cumsum(counts)[: second.size]
