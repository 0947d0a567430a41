"""Films for tests and benchmarks: soft structure of all sizes, grain, collimated edges, a lead letter."""

from __future__ import annotations

import numpy as np
import PIL.Image
from numpy.typing import NDArray

TOP = 4095


def film(seed: int, rows: int = 3000, columns: int = 2500) -> NDArray[np.uint16]:
    """Returns 12-bit values that differ for each seed and compress about 3 : 1, as films do."""
    generator = np.random.default_rng(seed)
    values = np.zeros((rows, columns), np.float32)
    side, weight = 4, 1.0
    while side < columns:  # each octave a little weaker than the one before
        coarse = PIL.Image.fromarray(generator.normal(0, 1, (side * rows // columns + 1, side)).astype(np.float32))
        values += weight * np.asarray(coarse.resize((columns, rows), PIL.Image.Resampling.BICUBIC))
        side, weight = 2 * side, 0.55 * weight
    values = 0.5 + 0.16 * (values - values.mean()) / values.std()
    values += generator.normal(0, 0.006, values.shape).astype(np.float32)
    values[: rows // 30] = values[-rows // 40 :] = values[:, : columns // 25] = 0.02
    values[rows // 10 : rows // 10 + rows // 20, -columns // 8 : -columns // 10] = 0.98
    stored: NDArray[np.uint16] = (np.clip(values, 0.0, 1.0) * TOP).astype(np.uint16)
    return stored
