"""A small head on the embedding: logistic regression, or a perceptron with ReLU between its layers."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nearcase.decide.array import Array
from nearcase.errors import InvalidInput

if TYPE_CHECKING:
    from nearcase.types import Embedding


@dataclass(frozen=True, slots=True)
class Layer:
    """x -> x weights + bias."""

    weights: Array  # (inputs, outputs)
    bias: Array  # (outputs,)

    def __post_init__(self) -> None:
        if len(self.weights.shape) != 2 or self.bias.shape != self.weights.shape[1:]:
            raise InvalidInput("expected weights (inputs, outputs) and bias (outputs,)", field="weights")


@dataclass(frozen=True, slots=True)
class Probe:
    """A trained head; no pickle, only arrays.

    The embedding is centred and scaled, goes through the layers, and the last layer's outputs become shares by softmax.
    A single output is the log odds of the second of two values: logistic regression.
    """

    values: tuple[str, ...]
    mean: Array  # (D,)
    scale: Array  # (D,) above 0
    layers: tuple[Layer, ...]

    def __post_init__(self) -> None:
        widths = [layer.weights.shape for layer in self.layers]
        joined = all(one[1] == other[0] for one, other in pairwise(widths))
        if not widths or not joined or self.mean.shape != self.scale.shape or self.mean.shape != widths[0][:1]:
            raise InvalidInput("expected layers that fit each other and the embedding", field="layers")
        if widths[-1][1] != (1 if len(self.values) == 2 and widths[-1][1] == 1 else len(self.values)):
            raise InvalidInput(f"expected one output for each of {len(self.values)} values", field="values")
        if len(self.values) < 2 or len(set(self.values)) != len(self.values):
            raise InvalidInput("expected two different values or more", field="values")
        if not (self.scale.values > 0.0).all():
            raise InvalidInput("expected scales above 0", field="scale")

    def shares(self, vector: Embedding) -> dict[str, float]:
        """Returns the share of each value, which add up to 1.

        Raises:
            InvalidInput: The embedding has another dimension.
        """
        check_dimension(vector, self.mean.shape[0])
        x = (vector.astype(np.float64) - self.mean.values) / self.scale.values
        for layer in self.layers[:-1]:
            x = np.maximum(_through(layer, x), 0.0)
        x = _through(self.layers[-1], x)
        logits = np.concatenate([[0.0], x]) if x.size == 1 else x
        return dict(zip(self.values, softmax(logits), strict=True))


def _through(layer: Layer, x: NDArray[np.float64]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = x @ layer.weights.values.astype(np.float64) + layer.bias.values
    return found


def softmax(logits: NDArray[np.float64]) -> list[float]:
    """Returns shares that add up to 1 and never overflow."""
    masses = np.exp(logits - logits.max())
    shares: list[float] = (masses / masses.sum()).tolist()
    return shares


def check_dimension(vector: Embedding, dimension: int) -> None:
    """Refuses an embedding of another encoder.

    Raises:
        InvalidInput: The embedding is not (dimension,).
    """
    if vector.shape != (dimension,):
        raise InvalidInput(f"expected an embedding of {dimension} numbers, got shape {vector.shape}", field="vector")
