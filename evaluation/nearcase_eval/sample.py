"""A checked sample: outcomes, scores and patients of equal length, nothing missing."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nearcase.errors import InvalidInput

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MISSING = frozenset({"", "None", "nan", "NaN", "NA", "<NA>", "NaT"})
"""How the missing values of Python, NumPy, pandas and R look as text."""

FEW_PATIENTS = 10
"""Below this many patients of equal weight a variance over patients is not trusted (Newcombe 2006 for AUROC)."""


@dataclass(frozen=True, slots=True)
class Sample:
    """N scored rows; a higher score speaks for the outcome, always (no direction is ever flipped)."""

    truth: Bools  # (N,)
    score: Floats  # (N,) finite
    patient: Ints  # (N,) codes from 0 to patients - 1
    patients: int  # size of the code space

    @property
    def n(self) -> int:
        """Rows."""
        return int(self.truth.size)

    @property
    def positives(self) -> int:
        """Rows with the outcome."""
        return int(np.count_nonzero(self.truth))

    def rows(self, mask: Bools) -> Sample:
        """Returns the chosen rows; patients keep their codes, so that parts of one sample can be set side by side."""
        index = np.flatnonzero(mask)
        return Sample(self.truth[index], self.score[index], self.patient[index], self.patients)

    def compact(self) -> Sample:
        """Returns the same rows with patients numbered anew without gaps, in their order: small parts stay small."""
        seen = np.zeros(self.patients, dtype=np.bool_)
        seen[self.patient] = True
        places = np.cumsum(seen) - 1
        return Sample(self.truth, self.score, places[self.patient], int(np.count_nonzero(seen)))

    def patients_among(self, mask: Bools | None = None) -> int:
        """Returns how many different patients the rows (of the mask) have."""
        return present(self.patient if mask is None else self.patient[mask], self.patients)


def present(codes: Ints, patients: int) -> int:
    """Returns how many different codes there are."""
    seen = np.zeros(patients, dtype=np.bool_)
    seen[codes] = True
    return int(np.count_nonzero(seen))


def sample_of(y_true: ArrayLike, y_score: ArrayLike, patient: ArrayLike | None = None) -> Sample:
    """Returns the checked sample; without patients every row is its own.

    Raises:
        InvalidInput: Lengths differ, labels are not 0/1, or a score, label or patient is missing.
    """
    truth, score = outcomes(y_true), numbers(y_score, "y_score")
    same_length(truth.size, score.size, "y_score")
    codes, patients = patient_codes(patient, truth.size)
    return Sample(truth, score, codes, patients)


def outcomes(y_true: ArrayLike) -> Bools:
    """Returns labels as booleans.

    Raises:
        InvalidInput: A label is neither 0 nor 1, or the array has more than one axis.
    """
    values = one_axis(y_true, "y_true")
    if values.dtype == np.bool_:
        return values
    found = numbers(values, "y_true")
    if wrong := int(np.count_nonzero((found != 0.0) & (found != 1.0))):
        raise InvalidInput(f"expected y_true of 0 and 1, got {wrong} other values", field="y_true")
    truth: Bools = found == 1.0
    return truth


def numbers(values: ArrayLike, name: str) -> Floats:
    """Returns finite float64 numbers.

    Raises:
        InvalidInput: The values are no numbers, some are NaN or infinite, or the array has more than one axis.
    """
    try:
        found = one_axis(values, name).astype(np.float64)
    except (TypeError, ValueError):
        raise InvalidInput(f"expected numbers in {name}, got text or objects", field=name) from None
    if bad := int(np.count_nonzero(~np.isfinite(found))):
        raise InvalidInput(f"expected finite {name}, got {bad} missing or infinite of {found.size}", field=name)
    return found


def probabilities(values: ArrayLike, name: str = "y_score") -> Floats:
    """Returns numbers that all lie in 0..1.

    Raises:
        InvalidInput: One does not, or is no finite number.
    """
    found = numbers(values, name)
    if wrong := int(np.count_nonzero((found < 0.0) | (found > 1.0))):
        raise InvalidInput(f"expected probabilities in 0..1 in {name}, got {wrong} outside", field=name)
    return found


def patient_codes(patient: ArrayLike | None, n: int) -> tuple[Ints, int]:
    """Returns codes from 0 in order of first appearance (of value, for integers), and how many there are.

    Codes that this function returned before are taken as they are, in one pass: code a large table once.

    Raises:
        InvalidInput: A patient is missing, or there are not n of them.
    """
    if patient is None:
        return np.arange(n, dtype=np.int64), n
    values = one_axis(patient, "patient")
    same_length(n, values.size, "patient")
    if values.dtype == np.int64 and n and 0 <= values.min() <= values.max() < n:
        patients = int(values.max()) + 1
        if present(values, patients) == patients:
            return values, patients
    if values.dtype.kind in "iub":
        unique, codes = np.unique(values, return_inverse=True)
        return codes.astype(np.int64), int(unique.size)
    return _codes_of_objects(values.tolist())


def _codes_of_objects(values: Iterable[Hashable]) -> tuple[Ints, int]:
    seen: dict[Hashable, int] = {}
    codes = [seen.setdefault(value, len(seen)) for value in values]
    missing = {code for value, code in seen.items() if is_missing(value)}
    if missing:
        count = sum(code in missing for code in codes)
        raise InvalidInput(f"expected a patient in every row, {count} of {len(codes)} have none", field="patient")
    return np.array(codes, dtype=np.int64), len(seen)


def sums(codes: Ints, values: Floats, patients: int) -> Floats:
    """Returns the sum of the values of each patient, (P,)."""
    return np.bincount(codes, weights=values, minlength=patients).astype(np.float64, copy=False)


def effective_patients(codes: Ints, patients: int) -> float:
    """Returns how many patients with equally many rows these are worth, (sum n_p)^2 / sum n_p^2 (Kish 1965).

    A patient with most of the rows makes this fall to 1, whatever the number of patients: a variance over patients
    then misses what that one patient decides.
    """
    counts = np.bincount(codes, minlength=patients).astype(np.float64)
    squares = float(counts @ counts)
    return float(codes.size) ** 2 / squares if squares else 0.0


def is_missing(value: object) -> bool:
    """Returns whether a table's cell says nothing: None, NaN, NA, NaT or empty text."""
    return str(value).strip() in MISSING


def one_axis(values: ArrayLike, name: str) -> NDArray[Any]:
    """Returns the values as an array with one axis.

    Raises:
        InvalidInput: It has more axes, or none.
    """
    found = np.asarray(values)
    if found.ndim != 1:
        raise InvalidInput(f"expected one axis in {name}, got shape {found.shape}", field=name)
    return found


def same_length(expected: int, got: int, name: str) -> None:
    """Raises InvalidInput unless the two lengths are equal."""
    if expected != got:
        raise InvalidInput(f"expected {expected} rows in {name}, got {got}", field=name)
