"""Arrays as values: equal, hashable and exact in JSON, where NumPy's are none of these."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nearcase.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class Array:
    """A float32 array, C order, little endian."""

    shape: tuple[int, ...]
    data: bytes

    def __post_init__(self) -> None:
        if min(self.shape, default=0) < 0 or len(self.data) != 4 * math.prod(self.shape):
            raise InvalidInput(f"expected {self.shape} float32 numbers, got {len(self.data)} bytes", field="data")
        if not np.isfinite(self.values).all():
            raise InvalidInput("expected finite numbers in an array, got NaN or infinite ones", field="data")

    @classmethod
    def of(cls, values: ArrayLike) -> Array:
        """Returns the values, rounded to float32."""
        found = np.ascontiguousarray(values, dtype="<f4")
        return cls(found.shape, found.tobytes())

    @property
    def values(self) -> NDArray[np.float32]:
        """The numbers, read-only."""
        return np.frombuffer(self.data, dtype="<f4").reshape(self.shape)
