"""Fixed sizes of batch: a GPU's buffers, profiles and recorded graphs belong to one shape each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

BUCKETS = (1, 2, 4, 8, 16, 32)
"""Halving sizes waste less than half of a batch on padding; larger ones were not seen to gain."""


def in_pieces(
    batch: NDArray[np.float32],
    buckets: tuple[int, ...],
    run: Callable[[NDArray[np.float32], int], NDArray[np.float32]],
) -> NDArray[np.float32]:
    """Returns what `run` gives for a batch of any size, called with pieces of it and the bucket of each."""
    return np.concatenate([run(batch[first:last], bucket) for first, last, bucket in pieces(len(batch), buckets)])


def bucket_of(count: int, buckets: tuple[int, ...]) -> int:
    """Returns the smallest bucket that holds so many images, and the largest one where none does."""
    return next((bucket for bucket in buckets if bucket >= count), buckets[-1])


def pieces(count: int, buckets: tuple[int, ...]) -> Iterator[tuple[int, int, int]]:
    """Yields (first, last + 1, bucket) of the calls that serve a batch of any size."""
    first = 0
    while first < count:
        bucket = bucket_of(count - first, buckets)
        last = min(first + bucket, count)
        yield first, last, bucket
        first = last
