"""What goes into every encoder and what comes out of it, checked in one place for all runtimes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nearcase.errors import InvalidInput, Unready

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nearcase.encode.card import Card

_LENGTH_TOLERANCE = 1e-3


def check_batch(batch: NDArray[np.float32], card: Card) -> None:
    """Refuses what is not (N, *recipe.input_shape) finite float32 with N of 1 or more.

    Raises:
        InvalidInput: It is not.
    """
    shape = card.recipe.input_shape
    if batch.dtype != np.float32 or batch.shape[1:] != shape or len(batch) == 0:
        expected = ", ".join(map(str, shape))
        raise InvalidInput(f"Expected a float32 batch (N, {expected}), got {batch.dtype} {batch.shape}")
    if not np.isfinite(batch).all():
        raise InvalidInput("Expected finite values in the batch, got infinite ones or none")


def check_embeddings(vectors: NDArray[np.float32], count: int, card: Card) -> None:
    """Refuses what is not (N, D) unit embeddings.

    Raises:
        Unready: The network, or what runs it, is broken.
    """
    expected = (count, card.dimension)
    if vectors.shape != expected or vectors.dtype != np.float32:
        raise Unready(
            f"Expected float32 embeddings {expected}, got {vectors.dtype} {vectors.shape}", reason="ENCODER_FAILED"
        )
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
    worst = float(lengths[np.argmax(np.nan_to_num(np.abs(lengths - 1.0), nan=np.inf))])
    if not abs(worst - 1.0) <= _LENGTH_TOLERANCE:  # true for NaN
        raise Unready(f"Expected embeddings of length 1, got {worst:.4g}", reason="ENCODER_FAILED")
