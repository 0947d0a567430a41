"""A volume that is read slice by slice, so that a long series never lies in memory whole."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nearcase.errors import InvalidInput
from nearcase.types import CaseFacts

MAX_SLICE_VOXELS = 1 << 30
"""Of one volume: 4096 slices of 512 x 512; a series takes processor time for each, whose limit comes sooner."""


@dataclass(frozen=True, slots=True)
class Planes:
    """Modality-transformed values of a series, one slice after another along their normal."""

    shape: tuple[int, int, int]  # slices, rows, columns
    direction: NDArray[np.float64]  # (3, 3), LPS: unit vectors across slices, down columns, along rows
    plane: Callable[[int], NDArray[np.float32]]  # slice number from 0 -> (rows, columns), finite; may be called again
    facts: CaseFacts  # of the series: no instance
    unit: str  # HU, BQML ...; empty where it is not stated
    media_type: str
    findings: tuple[str, ...]  # what was left out, and what is irregular in the rest

    def __post_init__(self) -> None:
        count = int(np.prod(self.shape, dtype=np.int64))
        if not 0 < count <= MAX_SLICE_VOXELS:
            raise InvalidInput(f"expected 1 to {MAX_SLICE_VOXELS} voxels, got {count}", reason="IMAGE_TOO_LARGE")
