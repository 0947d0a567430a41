"""Frames averaged over squares of pixels, for readers that need a small picture and not the film.

A film has 7.5 million pixels, and an encoder sees 224 x 224 of them. Averaging the stored values first leaves little
for the grey scale, the filter and the thumbnail to do. Only grey frames are averaged: embeddings of photographs moved
by more than a cosine of 0.999 allows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

SPARE = 3
"""Pixels that stay for each pixel that is needed, so that the antialiasing filter after this still decides.

With 3 the least cosine over real and made films is that of rounding alone (0.9993); with 2 it was 0.9976.
"""

SPARE_WAVELETS = 4
"""The same for wavelet levels, whose filter is not that of an average; with 3 the least cosine was 0.9977."""

Pixels = NDArray[np.uint8] | NDArray[np.float32]
Box = tuple[float, float, float, float]


def reduction_for(rows: int, columns: int, needed_px: int | None, spare: int = SPARE) -> int:
    """Returns the side of the squares to average, 1 for none.

    Args:
        rows: Of the frame.
        columns: Of the frame.
        needed_px: Length of the short side that the reader needs; None for the whole frame.
        spare: Pixels that stay for each that is needed.
    """
    return 1 if needed_px is None else max(min(rows, columns) // (spare * needed_px), 1)


def frame_box(rows: int, columns: int, halvings: int, side: int) -> Box | None:
    """Returns where the frame lies in its reduced picture: left, top, right, bottom in pixels; None if not reduced.

    The last squares may reach beyond the frame. A wavelet level keeps the even samples, so the first pixel of the
    halved frame lies over the first of the frame and not between the first two (T.800 annex F). Without this, edges
    move by part of a pixel, and a film's embedding from 0.9997 to 0.998 of itself.
    """
    if halvings == 0 and side == 1:
        return None
    power = 1 << halvings
    shift = 0.5 - 0.5 / power
    left = shift / side
    return left, left, (columns / power + shift) / side, (rows / power + shift) / side


def averaged(values: NDArray[Any], side: int) -> NDArray[np.floating[Any]]:
    """Returns the means of squares of (rows, columns) values.

    Squares begin at the first pixel; those at the far edges hold what is left, so no part of the frame is lost.
    float32 holds the sums of up to 16 bits well; 32 bits take float64.
    """
    kind = np.float32 if values.dtype.itemsize <= 2 else np.float64
    if side == 1:
        return values.astype(kind)
    rows = _averaged_rows(values, side, kind)
    return _averaged_rows(rows.swapaxes(0, 1), side, kind).swapaxes(0, 1)


def averaged_levels(levels: NDArray[np.uint8], side: int) -> Pixels:
    """Returns the means of squares of grey levels as float32, unrounded; the levels themselves where the side is 1."""
    return levels if side == 1 else averaged(levels, side).astype(np.float32, copy=False)


def _averaged_rows(values: NDArray[Any], side: int, kind: type[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    whole = len(values) // side
    groups = values[: whole * side].reshape(whole, side, *values.shape[1:])
    means = np.add(groups[:, 0], groups[:, 1], dtype=kind)
    for number in range(2, side):
        means += groups[:, number]
    means *= kind(1.0 / side)
    rest = values[whole * side :]
    return np.concatenate((means, rest.mean(axis=0, dtype=kind, keepdims=True))) if len(rest) else means
