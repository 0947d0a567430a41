"""Who belongs to which group: sex, age, any column, and their crossings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from nearcase.errors import InvalidInput
from nearcase_eval.ages import Ages
from nearcase_eval.estimate import State
from nearcase_eval.sample import Bools, Ints, Sample, is_missing, one_axis

CXR_EDGES = (18, 40, 60, 80)
"""0-18 (children apart), 18-40, 40-60, 60-80, 80+: the bins of the CXR_Fairness study code."""

SEYYED_EDGES = (20, 40, 60, 80)
"""0-20, 20-40, 40-60, 60-80, 80+: Seyyed-Kalantari 2021 and CheXclusion."""

SEXES = {
    **dict.fromkeys(("F", "FEMALE", "W", "WOMAN", "WOMEN"), "F"),
    **dict.fromkeys(("M", "MALE", "MAN", "MEN"), "M"),
    **dict.fromkeys(("O", "OTHER"), "O"),
}
"""Words for the values of Patient's Sex (0010,0040). 0 and 1 are not guessed: no two tables agree on them."""


@dataclass(frozen=True, slots=True)
class Grouping:
    """The group of each row; groups keep their place even when nobody is in them."""

    attribute: str
    names: tuple[str, ...]
    codes: Ints  # (N,) index into names, -1 where the attribute is missing
    notes: tuple[str, ...] = ()  # sentences about what was missing, unreadable or impossible

    def mask(self, index: int) -> Bools:
        """Returns which rows are in a group, (N,)."""
        found: Bools = self.codes == index
        return found

    @property
    def missing(self) -> int:
        """Rows without a group."""
        return int(np.count_nonzero(self.codes < 0))


@dataclass(frozen=True, slots=True)
class Minimum:
    """Patients that a group needs: of each class to be estimated at all, and to be called precise."""

    positives: int = 10
    negatives: int = 10
    comfortable: int = 50

    def assess(self, positives: int | None, negatives: int | None) -> tuple[State, str]:
        """Returns the state of a group with so many patients of each class; None for a class that does not matter."""
        for name, count, least in (("positives", positives, self.positives), ("negatives", negatives, self.negatives)):
            if count is not None and count < max(least, 1):  # nothing is estimated from nobody
                return State.NOT_ESTIMABLE, f"{count} patients with {name}, at least {max(least, 1)} are needed"
        counts = [count for count in (positives, negatives) if count is not None]
        if min(counts, default=0) < self.comfortable:
            return State.LOW_PRECISION, f"fewer than {self.comfortable} patients of a class"
        return State.OK, ""


def by_sex(values: ArrayLike | Sequence[object]) -> Grouping:
    """Returns F, M and, where present, O; other words are missing and counted."""
    column = one_axis(np.asarray(values, dtype=object), "sex")
    words = [SEXES.get(str(each).strip().upper(), "") for each in column]
    names = ("F", "M", "O") if "O" in words else ("F", "M")
    unstated = sum(is_missing(each) for each in column)
    unreadable = words.count("") - unstated
    notes = [f"{unstated} sexes are not stated"] * bool(unstated)
    notes += [f"{unreadable} sexes can not be read: expected F, M or O"] * bool(unreadable)
    return Grouping("sex", names, _codes(words, names), tuple(notes))


def by_age(ages: Ages, edges: Sequence[int] = CXR_EDGES) -> Grouping:
    """Returns bins [edge, next edge) in years, the first from 0 and the last open.

    A capped age below the last edge ("65+" with an edge at 80) could be in several bins and counts as missing.

    Raises:
        InvalidInput: Edges do not ascend from above 0.
    """
    if not edges or any(b <= a for a, b in zip((0, *edges), edges, strict=False)):
        raise InvalidInput(f"expected ascending age edges above 0, got {list(edges)}", field="age")
    lower = (0, *edges)
    names = (*(f"{a}-{b}" for a, b in zip(lower, edges, strict=False)), f"{edges[-1]}+")
    unsure = ages.open_ended & (ages.years < edges[-1])
    known = np.isfinite(ages.years) & ~unsure
    codes = np.where(known, np.searchsorted(edges, np.nan_to_num(ages.years), side="right"), -1).astype(np.int64)
    sentence = f"{int(unsure.sum())} capped ages could be in several bins and count as missing"
    return Grouping("age", names, codes, (*ages.notes, *[sentence] * bool(unsure.any())))


def by_column(attribute: str, values: ArrayLike | Sequence[object]) -> Grouping:
    """Returns the groups of any column, in the order of their text."""
    column = one_axis(np.asarray(values, dtype=object), attribute)
    words = ["" if is_missing(each) else str(each).strip() for each in column]
    names = tuple(sorted(set(words) - {""}))
    unstated = words.count("")
    return Grouping(
        attribute, names, _codes(words, names), (f"{unstated} rows do not state {attribute}",) * bool(unstated)
    )


def crossed(first: Grouping, second: Grouping) -> Grouping:
    """Returns every pair of groups, for example "F, 40-60"; missing where either is.

    Raises:
        InvalidInput: The groupings have different lengths.
    """
    if first.codes.size != second.codes.size:
        raise InvalidInput(f"expected {first.codes.size} rows in both groupings, got {second.codes.size}")
    names = tuple(f"{a}, {b}" for a in first.names for b in second.names)
    known = (first.codes >= 0) & (second.codes >= 0)
    codes = np.where(known, first.codes * len(second.names) + second.codes, -1)
    return Grouping(f"{first.attribute} x {second.attribute}", names, codes)


def class_patients(data: Sample, mask: Bools | None = None) -> tuple[int, int, int]:
    """Returns how many patients among the rows (of the mask) have (any row, a positive, a negative)."""
    part = data if mask is None else data.rows(mask)
    return part.patients_among(), part.patients_among(part.truth), part.patients_among(~part.truth)


def _codes(words: Sequence[str], names: Sequence[str]) -> Ints:
    place = {name: index for index, name in enumerate(names)}
    return np.array([place.get(word, -1) for word in words], dtype=np.int64)
