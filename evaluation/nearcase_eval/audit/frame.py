"""The rows of an audit: tables joined, duplicates dropped, labels read, every row that can not be used counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nearcase.errors import InvalidInput
from nearcase_eval.audit.plan import Plan
from nearcase_eval.audit.roles import Finding, Roles
from nearcase_eval.audit.source import Table, Text
from nearcase_eval.sample import Bools, Floats, Ints, Sample

POSITIVE = frozenset({"1", "1.0", "true", "yes", "y", "t", "positive", "pos", "present"})
NEGATIVE = frozenset({"0", "0.0", "false", "no", "n", "f", "negative", "neg", "absent"})
UNKNOWN = frozenset({"-1", "-1.0", "u", "uncertain", "unknown"})
"""-1 is CheXpert's uncertain; it is neither class, so the row is left out of this finding and counted."""

TEST_PARTS = ("test", "testing", "holdout", "held-out", "external")
CALIBRATION_PARTS = ("cal", "calib", "calibration", "calibrate", "val", "valid", "validation", "tune", "tuning", "dev")


MOST_PARTS = 20
"""A column with more values is no split; they may be names of persons, so they are not repeated in a message."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One finding's labels and scores, over all rows of the frame."""

    finding: Finding
    truth: Bools
    known: Bools  # a label of 0 or 1
    uncertain: int
    score: Floats  # NaN or infinite where missing
    compared: Floats | None


@dataclass(frozen=True, slots=True)
class Frame:
    """N rows, each once."""

    rows_read: int
    duplicates: int
    outcomes: tuple[Outcome, ...]
    patient: Ints  # (N,) codes from 0
    patients: int
    has_patients: bool  # False: every row counts as its own patient
    columns: Mapping[str, Text]  # attributes and other columns, over the N rows
    test: Bools
    calibrate: Bools
    parts: Mapping[str, Bools]  # value of the split column to its rows
    unmatched: int  # rows without a line in the metadata

    @property
    def n(self) -> int:
        """Rows."""
        return int(self.patient.size)

    def usable(self, outcome: Outcome, part: Bools, *, compared: bool = False) -> Bools:
        """Returns the rows of a part with a known label and a finite score (and other score), (N,)."""
        found = part & outcome.known & np.isfinite(outcome.score)
        return found & np.isfinite(outcome.compared) if compared and outcome.compared is not None else found

    def sample(self, outcome: Outcome, rows: Bools) -> Sample:
        """Returns the chosen rows of a finding."""
        return Sample(outcome.truth[rows], outcome.score[rows], self.patient[rows], self.patients)


def frame_of(table: Table, roles: Roles, plan: Plan, *, metadata: Table | None = None) -> Frame:
    """Returns the frame.

    Args:
        table: The scores, with the key of the metadata when there is one.
        roles: Which column is what.
        plan: Which parts are calibration and test.
        metadata: More columns, one line for each image.

    Raises:
        InvalidInput: There are no rows, a label is neither 0 nor 1, an image has two different rows, a row has no
            patient, or the named part is not in the split column.
    """
    if table.rows == 0:
        raise InvalidInput("expected rows below the header, the table has none")
    columns, unmatched = _joined(table, roles, metadata)
    keep = _first_of_each(table, columns, roles)
    columns = {name: column.rows(keep) for name, column in columns.items()}
    numbers = {name: column[keep] for name, column in table.numbers.items()}
    outcomes = tuple(_outcome(each, columns, numbers) for each in roles.findings)
    patient, patients = _patients(columns.get(roles.patient) if roles.patient else None, keep.size)
    test, calibrate, parts = _parts(columns[roles.split] if roles.split else None, plan, keep.size)
    return Frame(
        table.rows,
        table.rows - keep.size,
        outcomes,
        patient,
        patients,
        roles.patient is not None,
        columns,
        test,
        calibrate,
        parts,
        unmatched,
    )


def _joined(table: Table, roles: Roles, metadata: Table | None) -> tuple[dict[str, Text], int]:
    if metadata is None:
        return dict(table.texts), 0
    key = roles.image
    if key is None or key not in table.texts or key not in metadata.texts:
        raise InvalidInput("expected a column that both tables have, to join them: name it with --on", field="on")
    theirs = metadata.texts[key]
    if metadata.rows and np.bincount(theirs.codes).max() > 1:
        raise InvalidInput(f"the metadata has several lines for one value of {key!r}", field="on")
    place = {theirs.values[code]: row for row, code in enumerate(theirs.codes.tolist())}
    ours = table.texts[key]
    by_code = np.array([place.get(value, -1) if value else -1 for value in ours.values], dtype=np.int64)
    index = by_code[ours.codes]
    if np.all(index < 0):
        raise InvalidInput(f"no value of {key!r} is in both tables", field="on")
    found = {name: column.rows(index) for name, column in metadata.texts.items() if name != key}
    if shared := sorted(set(found) & set(table.texts)):
        raise InvalidInput(f"the column {shared[0]!r} is in both tables; drop it from one", field="on")
    return {**found, **table.texts}, int(np.count_nonzero(index < 0))


def _first_of_each(table: Table, columns: Mapping[str, Text], roles: Roles) -> Ints:
    """The rows to keep: a row that repeats another in every column is dropped, when images have names to tell."""
    everything = np.arange(table.rows)
    image = columns.get(roles.image) if roles.image else None
    if image is None or image.missing or len(image.values) == table.rows:
        return everything
    first: Ints = np.unique(image.codes, return_index=True)[1][image.codes]
    everywhere: dict[str, NDArray[Any]] = {**{name: text.codes for name, text in columns.items()}, **table.numbers}
    for name, column in everywhere.items():
        same = column == column[first]
        if column.dtype.kind == "f":
            same |= np.isnan(column) & np.isnan(column[first])
        if not same.all():
            raise InvalidInput(
                f"{int(np.count_nonzero(~same))} rows name an image that another row has with a different {name!r}: "
                "give each image one row, or name another column with --on (--on none: no column names images)",
                field="on",
            )
    return np.unique(first)


def _outcome(finding: Finding, columns: Mapping[str, Text], numbers: Mapping[str, Floats]) -> Outcome:
    label = columns[finding.label]
    words = [value.lower() for value in label.values]
    counts = np.bincount(label.codes, minlength=len(words))
    wrong = [place for place, word in enumerate(words) if word and word not in POSITIVE | NEGATIVE | UNKNOWN]
    if wrong:
        rows = int(counts[wrong].sum())
        raise InvalidInput(
            f"expected 0 and 1 (or yes/no, true/false) in the label column {finding.label!r}, got {len(wrong)} other "
            f"values in {rows} rows; if this column holds scores, exchange --label and --score",
            field="label",
        )
    positive, negative, unsure = (
        np.array([word in among for word in words], dtype=np.bool_)[label.codes]
        for among in (POSITIVE, NEGATIVE, UNKNOWN)
    )
    compared = numbers[finding.compared] if finding.compared else None
    return Outcome(
        finding, positive, positive | negative, int(np.count_nonzero(unsure)), numbers[finding.score], compared
    )


def _patients(column: Text | None, n: int) -> tuple[Ints, int]:
    if column is None:
        return np.arange(n, dtype=np.int64), n
    if column.missing:
        raise InvalidInput(
            f"{column.missing} of {n} rows have no patient; rows of one patient are not independent, so each needs its "
            "own (or say --patient none when every row is another person)",
            field="patient",
        )
    return column.codes.astype(np.int64), len(column.values)


def _parts(column: Text | None, plan: Plan, n: int) -> tuple[Bools, Bools, dict[str, Bools]]:
    if column is None:
        if plan.test or plan.calibrate:
            raise InvalidInput("--test and --calibrate need a split column: name it with --split", field="split")
        return np.ones(n, dtype=np.bool_), np.zeros(n, dtype=np.bool_), {}
    parts = {value: column.codes == code for code, value in enumerate(column.values) if value}
    test = _chosen("test", plan.test, parts, TEST_PARTS)
    calibrate = _chosen("calibrate", plan.calibrate, parts, CALIBRATION_PARTS)
    if both := set(test) & set(calibrate):
        raise InvalidInput(f"the part {min(both)!r} can not be both calibration and test", field="test")
    masks = [
        np.logical_or.reduce([parts[name] for name in names]) if names else np.zeros(n, dtype=np.bool_)
        for names in (test, calibrate)
    ]
    return masks[0], masks[1], parts


def _chosen(option: str, given: Sequence[str], parts: Mapping[str, Bools], usual: Sequence[str]) -> tuple[str, ...]:
    there = ", ".join(sorted(parts)) if len(parts) <= MOST_PARTS else f"{len(parts)} values"
    if missing := [name for name in given if name not in parts]:
        raise InvalidInput(f"--{option}: the split column has no {missing[0]!r}; it has {there}", field=option)
    if given:
        return tuple(given)
    found = tuple(name for name in parts if name.lower() in usual)
    if option == "test" and len(found) != 1:
        raise InvalidInput(
            f"which part is the test set? The split column has {there or 'no values'}: say it with --test, or --split "
            "none to take all rows",
            field="test",
        )
    return found
