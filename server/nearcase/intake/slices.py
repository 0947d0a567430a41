"""Where the frames of a DICOM object lie in the patient, read from its header alone."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from nearcase.errors import InvalidInput, Unsupported
from nearcase.intake.elements import frame_macro, integer, text
from nearcase.intake.facts import read_spacing_mm
from nearcase.intake.header import GREY, PixelHeader

Triple = tuple[float, float, float]

MAX_FRAMES = 1 << 14
"""More than the longest series; each costs a look into its functional groups."""
MAX_DISTANCE_MM = 1e5
_NUMBERS = 11  # of one frame on the wire: position 3, row and column direction 6, spacing 2
_ON_THE_WIRE = (
    ("rows", int),
    ("columns", int),
    ("series_uid", str),
    ("frame_of_reference_uid", str),
    ("instance_uid", str),
    ("instance_number", int),
    ("is_localiser", bool),
    ("is_mosaic", bool),
)


@dataclass(frozen=True, slots=True)
class Slice:
    """One frame of one file, as its header places it in the patient; None is "not stated"."""

    file_number: int  # place of its file among those given, from 0
    frame_number: int  # counts from 1
    rows: int
    columns: int
    position_mm: Triple | None = None  # LPS, centre of the first pixel
    row_direction: Triple | None = None  # unit, along a row: towards higher column numbers
    column_direction: Triple | None = None  # unit, down a column: towards higher row numbers
    spacing_mm: tuple[float, float] | None = None  # (between rows, between columns)
    series_uid: str = ""
    frame_of_reference_uid: str = ""
    instance_uid: str = ""
    instance_number: int = 0
    is_localiser: bool = False
    is_mosaic: bool = False  # many slices drawn into one picture


def read_slices(dataset: Dataset, header: PixelHeader, file_number: int) -> tuple[Slice, ...]:
    """Returns the place of each frame of a grey object.

    Image Position and Orientation (Patient) and Pixel Spacing (PS3.3 C.7.6.2.1.1 and 10.7.1.1), in enhanced objects
    those of each frame's functional groups (C.7.6.16.2.1, .3 and .4). Value 3 of Image Type tells localisers
    (C.8.2.1.1.1); MOSAIC there is how Siemens writes a whole volume as one picture.

    Raises:
        Unsupported: Colour, or more than MAX_FRAMES frames.
    """
    if header.photometric not in GREY:
        raise Unsupported("expected grey images for a volume, got colour")
    if header.frame_count > MAX_FRAMES:
        raise Unsupported(f"expected at most {MAX_FRAMES} frames for a volume, got {header.frame_count}")
    kinds = {str(value).upper() for value in _values(dataset, "ImageType")}
    whole = Slice(
        file_number=file_number,
        frame_number=0,
        rows=header.rows,
        columns=header.columns,
        series_uid=text(dataset, "SeriesInstanceUID"),
        frame_of_reference_uid=text(dataset, "FrameOfReferenceUID"),
        instance_uid=text(dataset, "SOPInstanceUID"),
        instance_number=integer(dataset, "InstanceNumber", 0),
        is_localiser="LOCALIZER" in kinds,
        is_mosaic="MOSAIC" in kinds,
    )
    return tuple(_placed(dataset, whole, number) for number in range(1, header.frame_count + 1))


def pack_slices(slices: tuple[Slice, ...]) -> tuple[dict[str, Any], bytes]:
    """Returns the slices of one file as words and as numbers, for the way out of a child process."""
    words = {name: getattr(slices[0], name) for name, _ in _ON_THE_WIRE}
    rows = [
        [
            *(slice_.position_mm or [math.nan] * 3),
            *(slice_.row_direction or [math.nan] * 3),
            *(slice_.column_direction or [math.nan] * 3),
            *(slice_.spacing_mm or [math.nan] * 2),
        ]
        for slice_ in slices
    ]
    return words, np.array(rows, np.float64).tobytes()


def unpack_slices(words: Mapping[str, Any], numbers: bytes, file_number: int) -> tuple[Slice, ...]:
    """Returns what pack_slices was given; the child is not trusted, so nothing but these types gets through.

    Raises:
        InvalidInput: The words or numbers are no slices.
    """
    frames = len(numbers) // (8 * _NUMBERS)
    if len(numbers) != frames * 8 * _NUMBERS or not 0 < frames <= MAX_FRAMES:
        raise _babble()
    if any(type(words.get(name)) is not kind for name, kind in _ON_THE_WIRE):
        raise _babble()
    if not (0 < words["rows"] <= 0xFFFF and 0 < words["columns"] <= 0xFFFF):
        raise _babble()
    whole = Slice(file_number=file_number, frame_number=0, **{name: words[name] for name, _ in _ON_THE_WIRE})
    table = np.frombuffer(numbers, np.float64).reshape(frames, _NUMBERS).tolist()
    return tuple(_at(whole, number, row[:3], row[3:9], row[9:]) for number, row in enumerate(table, 1))


def _placed(dataset: Dataset, whole: Slice, frame_number: int) -> Slice:
    position = _of_frame(dataset, "PlanePositionSequence", "ImagePositionPatient", frame_number)
    directions = _of_frame(dataset, "PlaneOrientationSequence", "ImageOrientationPatient", frame_number)
    spacing = list(read_spacing_mm(dataset, frame_number) or ())
    return _at(whole, frame_number, position, directions, spacing)


def _at(whole: Slice, frame_number: int, position: list[float], directions: list[float], spacing: list[float]) -> Slice:
    row, column = _unit_vectors(directions)
    return dataclasses.replace(
        whole,
        frame_number=frame_number,
        position_mm=_triple(position),
        row_direction=row,
        column_direction=column,
        spacing_mm=(spacing[0], spacing[1])
        if len(spacing) == 2 and all(0.0 < each < 1e4 for each in spacing)
        else None,
    )


def _of_frame(dataset: Dataset, macro: str, keyword: str, frame_number: int) -> list[float]:
    group = frame_macro(dataset, macro, frame_number)
    try:
        return [float(str(value)) for value in _values(dataset if group is None else group, keyword)]
    except ValueError:
        return []  # it states nothing


def _values(dataset: Dataset, keyword: str) -> list[object]:
    value: object = dataset.get(keyword)
    return list(value) if isinstance(value, MultiValue | list | tuple) else [] if value is None else [value]


def _triple(numbers: list[float]) -> Triple | None:
    if len(numbers) != 3 or not all(abs(number) < MAX_DISTANCE_MM for number in numbers):
        return None
    return numbers[0], numbers[1], numbers[2]


def _unit_vectors(numbers: list[float]) -> tuple[Triple, Triple] | tuple[None, None]:
    """The row and the column direction; none unless they are of unit length and at right angles (C.7.6.2.1.1)."""
    if len(numbers) != 6 or not all(math.isfinite(number) for number in numbers):
        return None, None
    row, column = np.array(numbers[:3]), np.array(numbers[3:])
    if max(abs(row @ row - 1.0), abs(column @ column - 1.0), abs(row @ column)) > 0.01:
        return None, None
    row = row / np.linalg.norm(row)
    column = column - (column @ row) * row
    return _as_triple(row), _as_triple(column / np.linalg.norm(column))


def _as_triple(vector: Any) -> Triple:
    return float(vector[0]), float(vector[1]), float(vector[2])


def _babble() -> InvalidInput:
    return InvalidInput("reading this file gave no slices that make sense", reason="DECODE_CRASH")
