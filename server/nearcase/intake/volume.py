"""Voxels of one series in millimetres of the patient, and the facts and findings that go with them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from nearcase.errors import InvalidInput
from nearcase.intake import dicom
from nearcase.intake.elements import frame_macro, text
from nearcase.intake.grey import Rescale, read_grey_rules
from nearcase.intake.header import PixelHeader
from nearcase.intake.luts import Lut
from nearcase.intake.parse import Parsed
from nearcase.intake.suv import NoSuv, Suv
from nearcase.types import CaseFacts

MAX_VOXELS = 1 << 28
"""One gigabyte of float32, 1024 slices of 512 x 512: every voxel is held in memory."""


@dataclass(frozen=True, slots=True)
class Volume:
    """A block of modality-transformed values: Hounsfield units for CT, activity for PET.

    voxels is float32 (slices, rows, columns) and finite. Voxel (d, h, w) of an evenly spaced volume lies at
    origin_mm + direction @ ((d, h, w) * spacing_mm) in LPS; offsets_mm holds where each slice truly lies.
    """

    voxels: NDArray[np.float32]
    spacing_mm: tuple[float, float, float]  # between slices, rows, columns
    origin_mm: tuple[float, float, float]  # LPS, centre of voxel (0, 0, 0)
    direction: NDArray[np.float64]  # (3, 3): its columns are the unit vectors across slices, down columns, along rows
    offsets_mm: tuple[float, ...]  # of each slice from the first, along the normal
    facts: CaseFacts
    unit: str  # HU, BQML ...; empty where it is not stated
    suv: Suv | NoSuv | None  # None: not PET
    findings: tuple[str, ...]  # what was left out, and what is irregular in the rest


def describe(volume: Volume) -> dict[str, Any]:
    """Returns what a volume is, without its voxels, for people and for JSON."""
    low, high = float(volume.voxels.min()), float(volume.voxels.max())
    return {
        "shape": list(volume.voxels.shape),
        "spacing_mm": list(volume.spacing_mm),
        "origin_mm": list(volume.origin_mm),
        "direction": volume.direction.tolist(),
        "unit": volume.unit,
        "smallest": low,
        "largest": high,
        "suv": _describe_suv(volume.suv, high),
        "findings": list(volume.findings),
    }


def _describe_suv(suv: Suv | NoSuv | None, largest: float) -> dict[str, Any] | None:
    if isinstance(suv, Suv):
        return {"factor": suv.factor, "rule": suv.rule, "largest": suv.factor * largest}
    return None if suv is None else {"factor": None, "reason": suv.reason}


def check_voxel_count(shape: tuple[int, ...]) -> None:
    """Refuses what would not fit into memory.

    Raises:
        InvalidInput: More than MAX_VOXELS.
    """
    count = int(np.prod(shape, dtype=np.int64))
    if not 0 < count <= MAX_VOXELS:
        raise InvalidInput(f"expected 1 to {MAX_VOXELS} voxels, got {count}", reason="IMAGE_TOO_LARGE")


def read_unit(dataset: Dataset, frame_number: int = 1) -> str:
    """Returns what the values are measured in.

    Units (0054,1001) for PET, else Rescale Type (PS3.3 C.11.1.1.2), of the frame first. CT without one is in Hounsfield
    units (C.8.2.1.1.5); US stands for "unspecified" there.
    """
    group = frame_macro(dataset, "PixelValueTransformationSequence", frame_number)
    stated = text(dataset, "Units") or text(dataset if group is None else group, "RescaleType")
    if stated.upper() == "US":
        return ""
    return stated.upper() or ("HU" if text(dataset, "Modality").upper() == "CT" else "")


def read_values(parsed: Parsed, header: PixelHeader, frame_number: int) -> tuple[NDArray[np.float32], int]:
    """Returns the modality-transformed values (rows, columns) of a grey frame, and how many pixels are padding.

    Values are not inverted for MONOCHROME1: that is how they are shown, not what they measure (PS3.3 C.7.6.3.1.2).
    Padding takes the smallest value of the frame that is none (C.7.5.1.1.2), so that it stays dark in every window.

    Raises:
        InvalidInput, Unsupported: As dicom.read_dicom.
    """
    stored = dicom._stored(parsed, header, frame_number).values
    little = parsed.byte_order == "<"
    rules = read_grey_rules(parsed.dataset, header, frame_number, None, is_little_endian=little)
    values = stored.astype(np.float64)
    if isinstance(rules.modality, Lut):
        values = rules.modality.apply(values)
    elif isinstance(rules.modality, Rescale):
        values = values * rules.modality.slope + rules.modality.intercept
    padded = 0
    if rules.padding is not None:
        is_padding = (stored >= rules.padding[0]) & (stored <= rules.padding[1])
        padded = int(is_padding.sum())
        if 0 < padded < values.size:
            values[is_padding] = values[~is_padding].min()
    if not np.isfinite(values.astype(np.float32)).all():
        raise InvalidInput("expected finite values after the rescale, got others", reason="BAD_ATTRIBUTE")
    return values.astype(np.float32), padded
