"""A head on the embedding, trained by scikit-learn and stored as arrays."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nearcase.decide.array import Array
from nearcase.decide.finding import Finding
from nearcase.decide.probe import Layer, Probe
from nearcase.errors import InvalidInput
from nearcase_eval.fit_reference import Asked
from nearcase_eval.probe import REGULARISATION

KINDS = ("logistic", "mlp")
HIDDEN = 64
"""Outputs of the hidden layer: a small one, since a hospital's finding has hundreds of cases, not millions."""


def train(images: Sequence[Asked], finding: Finding, *, kind: str, seed: int) -> Probe:
    """Returns a probe that tells the values of the finding's label, trained on these images alone.

    Raises:
        InvalidInput: The images show one value only, or not every positive value.
    """
    values = np.array([each.value for each in images])
    missing = sorted(set(finding.positive_values) - set(values.tolist()))
    if missing or len(set(values.tolist())) < 2:
        raise InvalidInput(f"expected images of every value to train on, got none of {', '.join(missing) or 'others'}")
    vectors = np.stack([each.vector for each in images]).astype(np.float64)
    mean, scale = vectors.mean(axis=0), np.maximum(vectors.std(axis=0), 1e-6)
    known, weights, biases = _layers((vectors - mean) / scale, values, kind, seed)
    layers = tuple(Layer(Array.of(weight), Array.of(bias)) for weight, bias in zip(weights, biases, strict=True))
    return Probe(known, Array.of(mean), Array.of(scale), layers)


def _layers(
    x: NDArray[np.float64], values: NDArray[np.str_], kind: str, seed: int
) -> tuple[tuple[str, ...], list[NDArray[np.float64]], list[NDArray[np.float64]]]:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier

    if kind == "logistic":
        model = LogisticRegression(C=REGULARISATION / x.shape[1], max_iter=2000).fit(x, values)
        return tuple(map(str, model.classes_)), [model.coef_.T], [model.intercept_]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # strong decay and few steps are the regularisation
        model = MLPClassifier((HIDDEN,), alpha=1.0, max_iter=60, random_state=seed).fit(x, values)
    return tuple(map(str, model.classes_)), list(model.coefs_), list(model.intercepts_)
