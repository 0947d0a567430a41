"""The slices of a series in the order of their positions, and what is wrong with them: said, not guessed.

Pure geometry in millimetres of the patient system, LPS: x to the left, y to the back, z to the head (PS3.3 C.7.6.2).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median_low
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nearcase.errors import InvalidInput
from nearcase.intake.slices import Slice

Vector = NDArray[np.float64]

SAME_PLACE_MM = 0.01
"""Positions closer than this are one: scanners write at least three decimals."""
SAME_STEP = 0.02
"""Steps that differ by less than this share are equal: positions are rounded, some to a tenth of a millimetre."""
SAME_DIRECTION = 1e-3
"""Radians between directions that are the same."""


@dataclass(frozen=True, slots=True)
class Series:
    """Slices of one orientation and size, one at each position, in the order along their normal."""

    slices: tuple[Slice, ...]
    spacing_mm: tuple[float, float, float]  # between slices, rows, columns
    offsets_mm: tuple[float, ...]  # of each slice from the first, along the normal
    direction: Vector  # (3, 3): its columns are the unit vectors across slices, down columns, along rows
    findings: tuple[str, ...]  # what was left out, and what is irregular in the rest

    @property
    def origin_mm(self) -> tuple[float, float, float]:
        """The centre of the first pixel of the first slice."""
        return _placed(self.slices[0]).position


@dataclass(frozen=True, slots=True)
class _Placed:
    """A slice with everything stated that a volume needs."""

    slice: Slice
    position: tuple[float, float, float]
    row: tuple[float, float, float]
    column: tuple[float, float, float]
    spacing: tuple[float, float]


def arrange(slices: Sequence[Slice]) -> Series:
    """Returns the slices that make one volume; the order in which they are given does not matter.

    Localisers, mosaics and images without a place are left out first; then the largest group of one series, frame of
    reference, size, orientation and pixel spacing is kept. Slices are ordered and spaced by Image Position (Patient)
    along the normal of Image Orientation (Patient) (PS3.3 C.7.6.2.1.1), never by instance number, and spaced never by
    Slice Thickness. Of several images at one position (time points, echoes) the first by instance number is kept,
    which is the first time point however the scanner counts.

    Raises:
        InvalidInput: There are fewer than two positions of one orientation.
    """
    findings: list[str] = []
    placed = _usable(slices, findings)
    for noun, alike in _ALIKE.items():
        placed = _majority(placed, alike, noun, findings)
    if len(placed) < 2:
        raise _no_volume(len(placed), findings)
    direction = _direction(placed[0])
    normal = direction[:, 0]
    ordered = _without_repeats(
        sorted(placed, key=lambda each: (_along(each, normal), *_identity(each))), normal, findings
    )
    if len(ordered) < 2:
        raise _no_volume(len(ordered), findings)
    first = _along(ordered[0], normal)
    offsets = tuple(_along(each, normal) - first for each in ordered)
    step = _step(offsets, findings)
    _note_shift(ordered, normal, findings)
    return Series(
        slices=tuple(each.slice for each in ordered),
        spacing_mm=(step, *ordered[0].spacing),
        offsets_mm=offsets,
        direction=direction,
        findings=tuple(findings),
    )


def _usable(slices: Sequence[Slice], findings: list[str]) -> list[_Placed]:
    localisers = sum(each.is_localiser for each in slices)
    mosaics = sum(each.is_mosaic for each in slices)
    candidates = [each for each in slices if not each.is_localiser and not each.is_mosaic]
    placed = [
        _placed(each)
        for each in candidates
        if each.position_mm and each.row_direction and each.column_direction and each.spacing_mm
    ]
    _note(findings, localisers, "localiser", "left out")
    _note(findings, mosaics, "mosaic", "of many slices in one image left out")
    _note(findings, len(candidates) - len(placed), "image", "without position, orientation or pixel spacing left out")
    return sorted(placed, key=_identity)


def _placed(slice_: Slice) -> _Placed:
    position, row, column = slice_.position_mm, slice_.row_direction, slice_.column_direction
    if position is None or row is None or column is None or slice_.spacing_mm is None:
        raise ValueError("the slice has no place")
    return _Placed(slice_, position, row, column, slice_.spacing_mm)


def _identity(each: _Placed) -> tuple[Any, ...]:
    """Orders slices by what they are, so that the order in which they came never shows."""
    slice_ = each.slice
    return slice_.instance_number, slice_.instance_uid, slice_.frame_number, each.position, each.row, each.column


def _close(left: Sequence[float], right: Sequence[float], tolerance: float) -> bool:
    return max(abs(a - b) for a, b in zip(left, right, strict=True)) <= tolerance


_ALIKE: dict[str, Callable[[_Placed, _Placed], bool]] = {
    "series": lambda a, b: a.slice.series_uid == b.slice.series_uid,
    "frame of reference": lambda a, b: a.slice.frame_of_reference_uid == b.slice.frame_of_reference_uid,
    "size": lambda a, b: (a.slice.rows, a.slice.columns) == (b.slice.rows, b.slice.columns),
    "orientation": lambda a, b: _close((*a.row, *a.column), (*b.row, *b.column), SAME_DIRECTION),
    "pixel spacing": lambda a, b: _close(a.spacing, b.spacing, SAME_DIRECTION * a.spacing[0]),
}


def _majority(
    placed: list[_Placed], alike: Callable[[_Placed, _Placed], bool], noun: str, findings: list[str]
) -> list[_Placed]:
    """Keeps the largest group of slices like its first; of equal groups the first."""
    groups: list[list[_Placed]] = []
    for each in placed:
        for group in groups:
            if alike(group[0], each):
                group.append(each)
                break
        else:
            groups.append([each])
    kept = max(groups, key=len, default=[])
    _note(findings, len(placed) - len(kept), "image", f"of another {noun} left out")
    return kept


def _direction(each: _Placed) -> Vector:
    row, column = np.array(each.row), np.array(each.column)
    return np.stack([np.cross(row, column), column, row], axis=1)


def _along(each: _Placed, normal: Vector) -> float:
    return float(np.dot(each.position, normal))


def _without_repeats(ordered: list[_Placed], normal: Vector, findings: list[str]) -> list[_Placed]:
    places: list[list[_Placed]] = []
    for each in ordered:
        if places and _along(each, normal) - _along(places[-1][0], normal) < SAME_PLACE_MM:
            places[-1].append(each)
        else:
            places.append([each])
    repeats = Counter(len(place) for place in places)
    if len(repeats) == 1 and len(places[0]) > 1:
        findings.append(
            f"{len(places[0])} images at each position (time points, echoes or copies): the first of each by instance "
            "number taken"
        )
    else:
        _note(findings, len(ordered) - len(places), "image", "at the position of another left out")
    return [min(place, key=_identity) for place in places]


def _step(offsets: tuple[float, ...], findings: list[str]) -> float:
    """The distance between slices: the mean where all are equal, else the commonest middle one, which is said."""
    steps = [after - before for before, after in pairwise(offsets)]
    step = median_low(steps)
    tolerance = max(SAME_PLACE_MM, SAME_STEP * step)
    if all(abs(each - step) <= tolerance for each in steps):
        return offsets[-1] / len(steps)
    gaps = [(place, each) for place, each in enumerate(steps, 1) if each >= 1.5 * step]
    for place, gap in gaps[:5]:
        missing = round(gap / step) - 1
        findings.append(f"gap of {gap:.2f} mm after slice {place}: {missing} slice{'s' * (missing > 1)} missing")
    if len(gaps) > 5:
        findings.append(f"{len(gaps) - 5} more gaps")
    others = [each for each in steps if each < 1.5 * step]
    if max(others) - min(others) > tolerance:
        findings.append(f"distances between slices vary from {min(others):.2f} to {max(others):.2f} mm")
    return step


def _note_shift(ordered: list[_Placed], normal: Vector, findings: list[str]) -> None:
    """Says when the slices do not lie straight above each other: a tilted gantry, or a patient who moved."""
    moved = np.array([each.position for each in ordered]) - np.array(ordered[0].position)
    in_plane = moved - np.outer(moved @ normal, normal)
    shift = float(np.linalg.norm(in_plane, axis=1).max())
    if shift > 0.5 * min(ordered[0].spacing):
        findings.append(f"slices are shifted against each other by up to {shift:.2f} mm in their plane (tilted gantry)")


def _note(findings: list[str], count: int, noun: str, what: str) -> None:
    if count:
        findings.append(f"{count} {noun}{'s' * (count > 1)} {what}")


def _no_volume(count: int, findings: list[str]) -> InvalidInput:
    why = f" ({'; '.join(findings)})" if findings else ""
    return InvalidInput(f"expected slices at two or more positions of one orientation, got {count}{why}")
