"""Ages as they come: numbers, DICOM age strings and capped values; what can not be an age is missing, and counted."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from nearcase_eval.sample import Bools, Floats, is_missing, one_axis

OLDEST_YEARS = 120.0
"""Above this an age is an error of entry: ChestX-ray14 has ages up to 414, others write 999 for unknown."""

YEARS_IN = {"D": 1.0 / 365.25, "W": 7.0 / 365.25, "M": 1.0 / 12.0, "Y": 1.0, "": 1.0}
"""Units of the value representation AS (DICOM PS3.5, table 6.2-1); a plain number is in years."""

PATTERN = re.compile(r"(?P<over>>=?\s*)?(?P<number>-?\d+(?:\.\d+)?)\s*(?P<unit>[DWMY]?)(?P<plus>\+?)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Ages:
    """Ages in years, NaN where missing; `open_ended` marks caps such as "90+", whose years are a lower bound."""

    years: Floats  # (N,)
    open_ended: Bools  # (N,)
    unstated: int
    unreadable: int
    impossible: int  # below 0 or above OLDEST_YEARS

    @property
    def notes(self) -> tuple[str, ...]:
        """One sentence for each thing that a report must say."""
        counts = {
            f"{self.unstated} ages are not stated": self.unstated,
            f"{self.unreadable} ages can not be read": self.unreadable,
            f"{self.impossible} ages are impossible (below 0 or above {OLDEST_YEARS:g}) and count as missing": (
                self.impossible
            ),
            f"{int(self.open_ended.sum())} ages are capped": int(self.open_ended.sum()),
        }
        return tuple(sentence for sentence, count in counts.items() if count)


def ages_of(values: ArrayLike | Sequence[object]) -> Ages:
    """Returns the ages of a column: 45, "45", "045Y", "006M", "90+", ">89".

    Raises:
        InvalidInput: The column has more than one axis.
    """
    column = one_axis(np.asarray(values, dtype=object), "age")
    known = {value: _read(value) for value in {str(each) for each in column}}
    read = [known[str(each)] for each in column]
    years = np.array([each[0] for each in read], dtype=np.float64).reshape(column.size)
    impossible = (years < 0.0) | (years > OLDEST_YEARS)
    unstated = sum(each[2] for each in read)
    return Ages(
        np.where(impossible, np.nan, years),
        np.array([each[1] for each in read], dtype=np.bool_).reshape(column.size) & ~impossible,
        unstated,
        int(np.isnan(years).sum()) - unstated,
        int(impossible.sum()),
    )


def _read(text: str) -> tuple[float, bool, bool]:
    """Returns (years, is a cap, is not stated)."""
    if is_missing(text):
        return np.nan, False, True
    found = PATTERN.fullmatch(text.strip())
    if found is None:
        return np.nan, False, False
    years = float(found["number"]) * YEARS_IN[found["unit"].upper()]
    return years, bool(found["over"] or found["plus"]), False
