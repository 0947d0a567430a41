"""Lookup tables that a file brings along: modality LUT, VOI LUT (PS3.3 C.11.1 and C.11.2)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from nearcase.errors import InvalidInput
from nearcase.intake.frames import swapped_words

_MAX_ENTRIES = 1 << 16


@dataclass(frozen=True, slots=True)
class Lut:
    """A table from whole numbers to entries; values outside take the nearest end (PS3.3 C.11.1.1.1)."""

    entries: NDArray[np.uint16]
    first_value: int
    bits: int

    @property
    def top(self) -> int:
        """The largest value an entry can have."""
        return (1 << self.bits) - 1

    def __str__(self) -> str:
        return f"LUT of {len(self.entries)} entries from {self.first_value}, {self.bits} bits"

    def apply(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Returns the entry of each value."""
        last = len(self.entries) - 1
        index = np.clip(np.rint(values - self.first_value), 0, last).astype(np.int64)
        return self.entries[index].astype(np.float64)


def read_lut(item: Dataset, *, is_signed: bool, is_little_endian: bool) -> Lut:
    """Returns the table of one sequence item (Modality LUT Sequence, VOI LUT Sequence).

    Args:
        item: Holds LUT Descriptor and LUT Data.
        is_signed: The table's input may be below 0, so the descriptor's second value is signed (C.11.1.1).
        is_little_endian: Byte order of LUT Data of type OW.

    Raises:
        InvalidInput: The descriptor is malformed, or there are fewer entries than it says.
    """
    count, first_value, bits = _descriptor(item, is_signed)
    entries = _entries(item, count, is_little_endian)
    if len(entries) < count:
        raise _wrong(f"expected {count} LUT entries, got {len(entries)}")
    return Lut(entries[:count], first_value, bits)


def _descriptor(item: Dataset, is_signed: bool) -> tuple[int, int, int]:
    try:
        count, first_value, bits = (int(value) for value in item.LUTDescriptor)
    except (AttributeError, TypeError, ValueError):
        raise _wrong("expected a LUT descriptor of three whole numbers, got something else") from None
    if not 8 <= bits <= 16:
        raise _wrong(f"expected LUT entries of 8 to 16 bits, got {bits}")
    count %= 1 << 16  # written as signed by some
    first_value %= 1 << 16
    if is_signed and first_value >= 1 << 15:
        first_value -= 1 << 16
    return count or _MAX_ENTRIES, first_value, bits  # 0 stands for 65536, which does not fit the field


def _entries(item: Dataset, count: int, is_little_endian: bool) -> NDArray[np.uint16]:
    data: object = item.get("LUTData")
    if isinstance(data, bytes):
        data = data if is_little_endian else swapped_words(data)
        if count > 1 and len(data) in (count, count + 1):
            return np.frombuffer(data, "u1").astype(np.uint16)
        return np.frombuffer(data[: len(data) // 2 * 2], "<u2").astype(np.uint16)
    values = data if isinstance(data, list) or hasattr(data, "__iter__") else [data]
    try:
        return np.array([int(value) % (1 << 16) for value in values], dtype=np.uint16)
    except (TypeError, ValueError):
        raise _wrong("expected LUT data of whole numbers, got something else") from None


def _wrong(message: str) -> InvalidInput:
    return InvalidInput(message, reason="BAD_LUT", field="LUTData")
