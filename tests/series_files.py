"""CT slices made on the spot, whose values tell where they lie."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from dicom_files import dicom_file
from numpy.typing import NDArray


def anatomy(z: int, rows: int = 4, columns: int = 5) -> NDArray[np.int16]:
    """Stored values that tell where a pixel lies: 100 z + 10 row + column."""
    return (100 * z + 10 * np.arange(rows)[:, None] + np.arange(columns)).astype(np.int16)


def ct_slice(z: int, pixels: NDArray[Any] | None = None, **attributes: Any) -> bytes:
    fields: dict[str, Any] = {
        "SeriesInstanceUID": "1.2.3",
        "SOPInstanceUID": f"1.2.3.{z}",
        "InstanceNumber": 50 - z,
        "ImagePositionPatient": [-10, -20, 2 * z],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "PixelSpacing": [0.5, 0.25],
        "SliceThickness": 9,
        "RescaleSlope": 2,
        "RescaleIntercept": -1000,
    }
    return dicom_file(anatomy(z) if pixels is None else pixels, **fields | attributes)


def written(folder: Path, files: Sequence[bytes]) -> list[Path]:
    paths = []
    for number, data in enumerate(files):
        paths.append(folder / f"{number}.dcm")
        paths[-1].write_bytes(data)
    return paths
