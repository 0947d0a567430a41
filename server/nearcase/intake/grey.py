"""Stored values -> grey levels: modality transform, padding, VOI, inversion, in the order of PS3.3 C.11 and C.7.6.3.

Up to 16 bits the whole chain is computed once for each possible stored value and then looked up, which is exact and
costs two passes over the pixels; 32 bits go through the same functions pixel by pixel. Where only a small picture is
needed and brightness rises as a straight line between two stored values, values are limited to these two and averaged
first: that commutes with the line, and only the small picture goes through the chain.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from nearcase.errors import InvalidInput
from nearcase.intake.elements import frame_macro, item, number, text
from nearcase.intake.header import PixelHeader
from nearcase.intake.luts import Lut, read_lut
from nearcase.intake.reduction import Pixels, averaged, averaged_levels
from nearcase.intake.windows import Range, Window, WindowFunction, apply_window

_LEAST_STEPS = 64
"""From black to white: limiting to whole stored values is then wrong by at most 1/64 of the scale, at edges only."""


@dataclass(frozen=True, slots=True)
class Rescale:
    """Modality transform by a straight line (PS3.3 C.11.1)."""

    slope: float
    intercept: float

    def __str__(self) -> str:
        return f"rescale slope {self.slope:g} intercept {self.intercept:g}"


@dataclass(frozen=True, slots=True)
class GreyRules:
    """How the stored values of one frame become grey levels."""

    modality: Rescale | Lut | None
    padding: tuple[int, int] | None  # stored values, both ends included
    voi: Window | Lut | None
    is_inverted: bool  # MONOCHROME1: the smallest value is white (PS3.3 C.7.6.3.1.2)
    notes: tuple[str, ...] = ()  # what was found and passed over


def read_grey_rules(
    dataset: Dataset, header: PixelHeader, frame_number: int, window: Window | None, *, is_little_endian: bool
) -> GreyRules:
    """Returns the rules of a frame: functional groups before the top level, tables before lines and windows.

    Args:
        dataset: The parsed object.
        header: Its checked pixel attributes.
        frame_number: Counts from 1.
        window: Stands in for the file's own VOI transform.
        is_little_endian: Byte order of table data.

    Raises:
        InvalidInput: A slope of 0, or a malformed number or table.
    """
    modality = _modality(dataset, header, frame_number, is_little_endian)
    signed = header.is_signed or (isinstance(modality, Rescale) and modality.intercept < 0)
    voi, notes = (window, ()) if window else _voi(dataset, frame_number, signed, is_little_endian)
    if isinstance(voi, Window) and not voi.is_valid:
        voi, notes = None, (*notes, f"{voi} is not valid, passed over")
    return GreyRules(modality, _padding(dataset, header), voi, header.photometric == "MONOCHROME1", notes)


def apply_grey_rules(
    stored: NDArray[np.integer], rules: GreyRules, side: int = 1, *, is_halved: bool = False
) -> tuple[Pixels, tuple[str, ...]]:
    """Returns the grey levels of stored values, higher is brighter, and the names of what was applied.

    Args:
        stored: (rows, columns) of an 8, 16 or 32 bit integer type.
        rules: What to apply.
        side: Of the squares to average (reduction.py), 1 for none.
        is_halved: The codec has reduced the frame. Levels of reduced frames are float32, those of whole ones uint8.
    """
    voi = rules.voi or _full_range(stored, rules)
    names = _names(rules, f"VOI {voi}" if isinstance(voi, Lut) else str(voi))
    line = straight_line(rules.modality, voi) if side > 1 or is_halved else None
    if line is not None:
        is_falling = isinstance(rules.modality, Rescale) and rules.modality.slope < 0
        return _ramp(averaged(_limited(stored, *line), side), *line, is_falling != rules.is_inverted), names
    if stored.dtype.itemsize > 2:
        return averaged_levels(_grey_of(stored, rules, voi), side), names
    domain = _domain(stored)
    table = _grey_of(domain, rules, voi)
    return averaged_levels(np.take(table, stored.view(f"u{stored.dtype.itemsize}")), side), names


def straight_line(modality: Rescale | Lut | None, voi: Window | Range | Lut | None) -> tuple[float, float] | None:
    """Returns the stored values, in order, between which brightness is a straight line, and beyond which it is level.

    None where a table or a curve says otherwise, where the range is not known, or where there are so few steps from
    end to end that limiting values to whole steps would show.
    """
    ends = None if voi is None or isinstance(voi, Lut) else voi.ends
    if ends is None or isinstance(modality, Lut):
        return None
    rescale = modality or Rescale(1.0, 0.0)
    low, high = sorted((end - rescale.intercept) / rescale.slope for end in ends)
    return (low, high) if high - low >= _LEAST_STEPS else None


def _limited(stored: NDArray[np.integer], low: float, high: float) -> NDArray[np.integer]:
    kind = np.iinfo(stored.dtype)
    least, most = (min(max(end, kind.min), kind.max) for end in (low, high))
    limited: NDArray[np.integer] = np.clip(stored, math.floor(least), math.ceil(most))
    return limited


def _ramp(values: NDArray[np.floating[Any]], low: float, high: float, is_falling: bool) -> NDArray[np.float32]:
    """Returns the grey levels of averaged values, which it overwrites: black at low and white at high, or falling."""
    values -= low
    values *= 255.0 / (high - low)
    np.clip(values, 0.0, 255.0, out=values)
    if is_falling:
        np.subtract(255.0, values, out=values)
    return values.astype(np.float32, copy=False)


def _grey_of(stored: NDArray[Any], rules: GreyRules, voi: Window | Range | Lut) -> NDArray[np.uint8]:
    values = _modality_values(stored, rules.modality)
    match voi:
        case Window():
            share = apply_window(values, voi)
        case Lut():
            share = voi.apply(values) / voi.top
        case Range():
            share = voi.apply(values)
    levels = np.rint(np.clip(share, 0.0, 1.0) * 255.0).astype(np.uint8)
    return 255 - levels if rules.is_inverted else levels


def _modality_values(stored: NDArray[Any], modality: Rescale | Lut | None) -> NDArray[np.float64]:
    values = stored.astype(np.float64)
    if isinstance(modality, Lut):
        return modality.apply(values)
    if isinstance(modality, Rescale):
        values *= modality.slope
        values += modality.intercept
    return values


def _full_range(stored: NDArray[np.integer], rules: GreyRules) -> Range:
    """From the smallest to the largest value that is there and is no padding; a flat image is black."""
    if rules.padding is None and not isinstance(rules.modality, Lut):
        present = np.array([stored.min(), stored.max()])  # a straight line puts nothing beyond these
    elif stored.dtype.itemsize > 2:
        present = stored[_countable(stored, rules.padding)]
    else:
        domain = _domain(stored)
        is_there = np.zeros(len(domain), dtype=bool)
        is_there[stored.view(f"u{stored.dtype.itemsize}").ravel()] = True
        present = domain[is_there & _countable(domain, rules.padding)]
    values = _modality_values(present, rules.modality)
    return Range(float(values.min()), float(values.max())) if values.size else Range(0.0, 0.0)


def _domain(stored: NDArray[np.integer]) -> NDArray[np.integer]:
    """Every value that the type of stored can have, at the index that is its bits."""
    return np.arange(1 << 8 * stored.dtype.itemsize, dtype=f"u{stored.dtype.itemsize}").view(stored.dtype)


def _countable(stored: NDArray[np.integer], padding: tuple[int, int] | None) -> NDArray[np.bool_]:
    if padding is None:
        return np.ones(stored.shape, dtype=bool)
    return (stored < padding[0]) | (stored > padding[1])


def _names(rules: GreyRules, voi_name: str) -> tuple[str, ...]:
    modality = f"modality {rules.modality}" if isinstance(rules.modality, Lut) else str(rules.modality or "")
    padding = "" if rules.padding is None or rules.voi is not None else "padding left out of the range"
    inverted = "MONOCHROME1 inverted" if rules.is_inverted else ""
    return tuple(name for name in (modality, padding, *rules.notes, voi_name, inverted) if name)


def _modality(dataset: Dataset, header: PixelHeader, frame_number: int, is_little_endian: bool) -> Rescale | Lut | None:
    """Modality LUT Sequence, else Rescale Slope and Intercept (PS3.3 C.11.1), of the frame first (C.7.6.16.2.9)."""
    table = item(dataset, "ModalityLUTSequence")
    if table is not None:
        return read_lut(table, is_signed=header.is_signed, is_little_endian=is_little_endian)
    group = frame_macro(dataset, "PixelValueTransformationSequence", frame_number)
    source = dataset if group is None else group
    slope, intercept = number(source, "RescaleSlope"), number(source, "RescaleIntercept")
    if slope is None and intercept is None:
        return None
    slope, intercept = 1.0 if slope is None else slope, intercept or 0.0
    if slope == 0.0 or not (math.isfinite(slope) and math.isfinite(intercept)):
        raise InvalidInput(
            f"expected a finite rescale with a slope other than 0, got {slope:g} and {intercept:g}",
            reason="BAD_ATTRIBUTE",
            field="RescaleSlope",
        )
    return Rescale(slope, intercept)


def _voi(
    dataset: Dataset, frame_number: int, is_signed: bool, is_little_endian: bool
) -> tuple[Window | Lut | None, tuple[str, ...]]:
    """The first VOI LUT, else the first window (PS3.3 C.11.2), of the frame first (C.7.6.16.2.10)."""
    group = frame_macro(dataset, "FrameVOILUTSequence", frame_number)
    source = dataset if group is None else group
    table = item(source, "VOILUTSequence")
    if table is not None:
        return read_lut(table, is_signed=is_signed, is_little_endian=is_little_endian), ()
    center, width = number(source, "WindowCenter"), number(source, "WindowWidth")
    if center is None or width is None:
        return None, ()
    name = text(source, "VOILUTFunction").upper() or WindowFunction.LINEAR.value
    known = name in WindowFunction.__members__
    function = WindowFunction[name] if known else WindowFunction.LINEAR
    return Window(center, width, function), () if known else ("unknown VOI LUT function, LINEAR taken",)


def _padding(dataset: Dataset, header: PixelHeader) -> tuple[int, int] | None:
    """Pixel Padding Value, or the range to its limit, as stored values (PS3.3 C.7.5.1.1.2).

    Some writers give a negative value as an unsigned one, so it is read modulo the stored bits.
    """
    value = number(dataset, "PixelPaddingValue")
    if value is None:
        return None
    limit = number(dataset, "PixelPaddingRangeLimit")
    ends = [_as_stored(int(end), header) for end in (value, value if limit is None else limit)]
    return min(ends), max(ends)


def _as_stored(value: int, header: PixelHeader) -> int:
    span = 1 << header.bits_allocated
    value %= span
    return value - span if header.is_signed and value >= span // 2 else value
