"""NIfTI files made on the spot, field by field from the standard: independent of nibabel and of our reader."""

from __future__ import annotations

import gzip
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

CODES = {"u1": 2, "i2": 4, "i4": 8, "f4": 16, "f8": 64, "i1": 256, "u2": 512, "u4": 768, "i8": 1024, "u8": 1280}


def nifti_file(
    voxels: NDArray[Any],
    *,
    affine: NDArray[np.float64] | None = None,
    order: str = "<",
    slope: float = 0.0,
    intercept: float = 0.0,
    units: int = 2,
    zipped: bool = False,
    **fields: Any,
) -> bytes:
    """Returns a NIfTI-1 file of these voxels, (i, j, k) or (i, j, k, time).

    Args:
        voxels: The stored values.
        affine: (4, 4) as sform; without one, voxels of 1 mm in RAS.
        order: "<" or ">".
        slope: scl_slope.
        intercept: scl_inter.
        units: xyzt_units.
        zipped: As .nii.gz.
        fields: By any name an offset, a struct code and a value, written last.
    """
    affine = np.eye(4) if affine is None else affine
    header = bytearray(352)
    shape = (*voxels.shape, *[1] * (7 - voxels.ndim))
    parts: list[tuple[int, str, tuple[Any, ...]]] = [
        (0, "i", (348,)),
        (40, "8h", (voxels.ndim, *shape)),
        (70, "2h", (CODES[f"{voxels.dtype.kind}{voxels.dtype.itemsize}"], 8 * voxels.dtype.itemsize)),
        (76, "8f", (1.0,) * 8),
        (108, "3f", (352.0, slope, intercept)),
        (123, "B", (units,)),
        (254, "h", (1,)),
        (280, "12f", tuple(affine[:3].ravel())),
        (344, "4s", (b"n+1\0",)),
        *((place, code, (value,)) for place, code, value in fields.values()),
    ]
    for place, code, values in parts:
        struct.pack_into(order + code, header, place, *values)
    data = bytes(header) + voxels.astype(f"{order}{voxels.dtype.kind}{voxels.dtype.itemsize}").tobytes(order="F")
    return gzip.compress(data) if zipped else data


def rotation(angles: tuple[float, float, float]) -> NDArray[np.float64]:
    """Returns the (3, 3) matrix that turns about x, then y, then z, in radians."""
    matrix = np.eye(3)
    for (first, second), angle in zip(((1, 2), (2, 0), (0, 1)), angles, strict=True):
        turn = np.eye(3)
        turn[[first, second], [first, second]] = np.cos(angle)
        turn[second, first], turn[first, second] = np.sin(angle), -np.sin(angle)
        matrix = turn @ matrix
    return matrix
