"""A linear probe: how much of a finding a logistic regression reads off the embeddings of other patients."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nearcase_eval.sample import Bools, Floats, Ints

FOLDS = 5
REGULARISATION = 0.1
"""Inverse strength C on unit vectors scaled to unit variance; fixed, since choosing it on the test data would cheat."""


def out_of_fold(vectors: NDArray[np.float32], truth: Bools, patient: Ints, *, seed: int) -> Floats:
    """Returns (N,) probabilities, each from a probe that never saw the row's patient.

    Folds hold whole patients and are stratified by outcome. Few patients of a class give fewer folds, at least two.

    Args:
        vectors: (N, D) embeddings.
        truth: (N,) outcomes.
        patient: (N,) codes.
        seed: Of the folds.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    classes = min(len(np.unique(patient[truth])), len(np.unique(patient[~truth])))
    folds = StratifiedGroupKFold(max(2, min(FOLDS, classes)), shuffle=True, random_state=seed)
    scores = np.full(len(truth), np.nan)
    for train, test in folds.split(vectors, truth, patient):
        scores[test] = fit_and_score(vectors[train], truth[train], vectors[test])
    return scores


def fit_and_score(train: NDArray[np.float32], truth: Bools, test: NDArray[np.float32]) -> Floats:
    """Returns the probabilities of the test rows; of one class only, the prevalence."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if truth.all() or not truth.any():
        return np.full(len(test), float(truth.mean()))
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=REGULARISATION / train.shape[1], max_iter=2000))
    probe.fit(train, truth)
    scores: Floats = probe.predict_proba(test)[:, 1]
    return scores
