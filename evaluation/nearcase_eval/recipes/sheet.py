"""A set whose tables say everything, column by column: most sets need no more than this."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nearcase.errors import InvalidInput
from nearcase_eval.recipes.labels import Label
from nearcase_eval.recipes.located import ending, located
from nearcase_eval.recipes.recipe import Built, Entry, Progress
from nearcase_eval.recipes.tables import find, read_list, read_table
from nearcase_eval.table import Row

SEXES = {"f": "F", "female": "F", "m": "M", "male": "M"}


@dataclass(frozen=True, slots=True)
class Sheet:
    """One table of a set, and which of its columns say what.

    Where several columns are named, the first that the table has and that is not empty counts.
    """

    files: tuple[str, ...]  # patterns; the first that matches
    image: str  # "{id}.png": columns in braces; matched with the end of the files' paths
    patient: tuple[str, ...]
    labels: tuple[Label, ...]
    split: str = ""
    sex: tuple[str, ...] = ()
    sexes: Mapping[str, str] = field(default_factory=lambda: SEXES)  # value, in small letters, to F or M
    age: tuple[str, ...] = ()
    view: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()  # other columns, for groups
    depth: int = 1  # parts of the path that tell an image
    patient_pattern: str = ""  # what of the patient's column is the patient
    delimiter: str = ","
    joined: tuple[str, ...] = ()  # a second table of the same images
    key: str = ""  # the image's column in this table ...
    joined_key: str = ""  # ... and in the second one
    lists: Mapping[str, str] = field(default_factory=dict)  # file that lists the images of a split, by `key`
    optional: bool = False  # the set is whole without it


@dataclass(frozen=True, slots=True)
class Sheets:
    """A set of one or more tables; may be called as a recipe's `build`."""

    sheets: tuple[Sheet, ...]
    notes: tuple[str, ...] = ()

    def __call__(self, folder: Path, converted: Path, progress: Progress) -> Built:
        """Returns the entries whose images are there.

        Raises:
            InvalidInput: A table, a column or every image is missing.
        """
        entries: list[Entry] = []
        absent = unnamed = 0
        for sheet in self.sheets:
            if sheet.optional and not any(any(folder.rglob(pattern)) for pattern in sheet.files):
                continue
            made = _entries(folder, sheet)
            entries += made.entries
            absent += made.absent
            unnamed += made.unnamed
        if not entries:
            raise InvalidInput(f"none of the {absent} images of the table is in {folder.name}")
        notes = [f"{absent} images of the tables are not in the folder and are left out"] * bool(absent)
        notes += [f"{unnamed} images state no patient: each counts as a person of its own"] * bool(unnamed)
        return Built(folder, tuple(entries), (*self.notes, *notes))


@dataclass(frozen=True, slots=True)
class _Read:
    entries: list[Entry]
    absent: int
    unnamed: int


def _entries(folder: Path, sheet: Sheet) -> _Read:
    rows = _rows(folder, sheet)
    places, splits = located(folder, sheet.depth), _splits(folder, sheet)
    entries: list[Entry] = []
    unnamed = 0
    for row in rows:
        place = places.get(ending(sheet.image.format_map(row), sheet.depth))
        if place is not None:
            unnamed += not _first(row, sheet.patient[:1])
            entries.append(_entry(row, sheet, place, splits))
    return _Read(entries, len(rows) - len(entries), unnamed)


def _rows(folder: Path, sheet: Sheet) -> list[Row]:
    path = find(folder, sheet.files, "the table")
    needed = {*re.findall(r"{(\w[^}]*)}", sheet.image), *[sheet.key] * bool(sheet.key)}
    if not sheet.joined:
        needed |= {label.column for label in sheet.labels} | {sheet.patient[-1]}
        return read_table(path, sorted(needed), sheet.delimiter)
    rows = read_table(path, sorted(needed), sheet.delimiter)
    second = find(folder, sheet.joined, "the second table")
    others = {row[sheet.joined_key]: row for row in read_table(second, [sheet.joined_key])}
    both = [others.get(row[sheet.key], {}) | row for row in rows]
    wanted = {label.column for label in sheet.labels} | {sheet.patient[-1]}
    if missing := sorted(name for name in wanted if name not in both[0]):
        raise InvalidInput(f"{path.name} and {second.name}: expected the column {missing[0]!r}, found none")
    return both


def _splits(folder: Path, sheet: Sheet) -> Mapping[str, str]:
    return {
        name: split
        for file, split in sheet.lists.items()
        for name in read_list(find(folder, (file,), "the list of a split"))
    }


def _entry(row: Row, sheet: Sheet, place: str, splits: Mapping[str, str]) -> Entry:
    patient = _first(row, sheet.patient)
    if sheet.patient_pattern:
        found = re.search(sheet.patient_pattern, patient)
        patient = found.group() if found else ""
    return Entry(
        image=place,
        patient=patient,
        sex=sheet.sexes.get(_first(row, sheet.sex).lower(), ""),
        age=_first(row, sheet.age),
        split=splits.get(row[sheet.key], "") if splits else sheet.split,
        labels={label.name: label.of(row) for label in sheet.labels},
        view=_first(row, sheet.view),
        columns={name: row.get(name, "") for name in sheet.keep},
    )


def _first(row: Row, names: Sequence[str]) -> str:
    return next((row[name] for name in names if row.get(name)), "")
