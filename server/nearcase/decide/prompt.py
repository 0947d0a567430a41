"""Zero-shot: how near an image is to what a text tower makes of words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nearcase.decide.array import Array
from nearcase.decide.probe import check_dimension, softmax
from nearcase.errors import InvalidInput

if TYPE_CHECKING:
    from nearcase.types import Embedding


@dataclass(frozen=True, slots=True)
class PromptHead:
    """The text embedding of each value, and the encoder's learned scale.

    Shares are softmax(exp(log_scale) x cosine). MedImageInsight's API gives the scale as its logarithm (4.51), of which
    the exponential must be taken (91.2).
    """

    values: tuple[str, ...]
    vectors: Array  # (values, D) unit length
    log_scale: float

    def __post_init__(self) -> None:
        if len(self.vectors.shape) != 2 or self.vectors.shape[0] != len(self.values) or len(self.values) < 2:
            raise InvalidInput("expected one text embedding for each of two values or more", field="vectors")
        if not np.allclose(np.linalg.norm(self.vectors.values, axis=1), 1.0, atol=1e-3):
            raise InvalidInput("expected text embeddings of unit length", field="vectors")
        if self.log_scale > math.log(1e4):
            raise InvalidInput("expected the logarithm of the scale, got the scale itself", field="log_scale")

    def shares(self, vector: Embedding) -> dict[str, float]:
        """Returns the share of each value, which add up to 1.

        Raises:
            InvalidInput: The embedding has another dimension.
        """
        check_dimension(vector, self.vectors.shape[1])
        cosines = self.vectors.values.astype(np.float64) @ vector.astype(np.float64)
        return dict(zip(self.values, softmax(math.exp(self.log_scale) * cosines), strict=True))


def prompt_head(values: Sequence[str], texts: Sequence[NDArray[np.float32]], log_scale: float) -> PromptHead:
    """Returns the head of embedded prompts: each value's unit vectors (T, D) are averaged, and made unit again."""
    means = [np.mean(each / np.linalg.norm(each, axis=1, keepdims=True), axis=0) for each in texts]
    return PromptHead(tuple(values), Array.of(np.stack([mean / np.linalg.norm(mean) for mean in means])), log_scale)
