"""Entries to a cohort's table and TOML file, with no patient in both the library and the test set."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nearcase.errors import InvalidInput, NearcaseError
from nearcase_eval.cohort import LEAVE_ONE_PATIENT_OUT, LIBRARY_TEST
from nearcase_eval.recipes.recipe import NEGATIVE, POSITIVE, TEST, VALIDATION, Built, Entry, Recipe

SHARED = "shared"
"""Split of the images that are left out of the library because their patient is in the test set."""


@dataclass(frozen=True, slots=True)
class Written:
    """What was written."""

    toml: Path
    table: Path
    protocol: str
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Split:
    entries: tuple[Entry, ...]
    library: tuple[str, ...]
    test: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def protocol(self) -> str:
        return LIBRARY_TEST if self.test else LEAVE_ONE_PATIENT_OUT


def write_cohort(recipe: Recipe, built: Built, toml: Path) -> Written:
    """Writes COHORT.toml and COHORT.csv beside it.

    The official test set stays whole: where the official split leaks, the library loses the patients that are in the
    test set. Findings that the queries do not have both ways are left out.

    Raises:
        InvalidInput: No finding can be tested.
        NearcaseError: A file can not be written.
    """
    split = _disjoint(built.entries)
    findings, dropped = _findings(split)
    if not findings:
        raise InvalidInput(f"{recipe.name}: expected a finding with positives and negatives among the queries")
    left = f"left out, without positives or without negatives: {', '.join(dropped)}"
    told = (*recipe.cautions, *built.notes, *split.notes, *[left] * bool(dropped))
    unsure = tuple(f"not confirmed: {each}" for each in recipe.unconfirmed)
    table = toml.with_suffix(".csv")
    try:
        toml.parent.mkdir(parents=True, exist_ok=True)
        _write_table(split.entries, findings, table)
        toml.write_text(_toml(recipe, split, findings, (*told, *unsure), built.images, toml, table), "utf-8")
    except OSError as error:
        raise NearcaseError(f"the cohort can not be written to {toml.parent}: {error.strerror}") from error
    return Written(toml, table, split.protocol, (*told, *unsure))


def _disjoint(entries: Sequence[Entry]) -> _Split:
    splits = {entry.split for entry in entries} - {""}
    test = TEST if TEST in splits else VALIDATION if VALIDATION in splits else ""
    if not test or splits == {test}:
        return _Split(tuple(entries), (), (), ())
    tested = {entry.patient for entry in entries if entry.split == test}
    kept = tuple(
        replace(entry, split=SHARED) if entry.split != test and entry.patient in tested else entry for entry in entries
    )
    shared = [entry for entry in kept if entry.split == SHARED]
    people = len({entry.patient for entry in shared})
    note = f"the official split has {people} patients in both parts; {len(shared)} images of theirs leave the library"
    library = tuple(sorted({entry.split for entry in kept} - {"", test, SHARED}))
    if not library:
        whole = "nothing stays in the library without the test patients, so each patient is left out in turn instead"
        return _Split(tuple(entries), (), (), (note, whole))
    return _Split(kept, library, (test,), (note,) * bool(shared))


def _findings(split: _Split) -> tuple[list[str], list[str]]:
    queries = [entry for entry in split.entries if not split.test or entry.split in split.test]
    names = list(dict.fromkeys(name for entry in split.entries for name in entry.labels))
    said = {name: {entry.labels.get(name, "") for entry in queries} for name in names}
    kept = [name for name in names if {POSITIVE, NEGATIVE} <= said[name]]
    return kept, [name for name in names if name not in kept]


def _write_table(entries: Sequence[Entry], findings: Sequence[str], path: Path) -> None:
    extra = list(dict.fromkeys(name for entry in entries for name in entry.columns))
    labels = [f"label_{name}" for name in findings]
    part = path.with_name(path.name + ".part")
    with part.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["image", "patient_id", "sex", "age", "split", "view", *extra, *labels])
        for entry in entries:
            facts = [entry.image, entry.patient, entry.sex, entry.age, entry.split, entry.view]
            outcomes = [entry.labels.get(name, "") for name in findings]
            writer.writerow([*facts, *(entry.columns.get(name, "") for name in extra), *outcomes])
    os.replace(part, path)


def _toml(
    recipe: Recipe,
    split: _Split,
    findings: Sequence[str],
    notes: Sequence[str],
    images: Path,
    toml: Path,
    table: Path,
) -> str:
    note = f"Terms: {recipe.terms}. Mapping: {recipe.source}. " + " ".join(f"{_sentence(each)}" for each in notes)
    lines = [
        f"# Written by `nearcase-eval recipe {recipe.name}`.",
        f"name = {_text(recipe.title)}",
        f"note = {_text(note.strip())}",
        f"images = {_text(_relative(images, toml))}",
        f"table = {_text(table.name)}",
        f"protocol = {_text(split.protocol)}",
    ]
    for name in findings:
        lines += ["", "[[finding]]", f"name = {_text(name)}", f"column = {_text(f'label_{name}')}"]
    if split.test:
        lines += ["", "[split]", f"library = {_texts(split.library)}", f"test = {_texts(split.test)}"]
    return "\n".join(lines) + "\n"


def _relative(images: Path, toml: Path) -> str:
    try:
        return Path(os.path.relpath(images.resolve(), toml.parent.resolve())).as_posix()
    except ValueError:  # another drive
        return images.resolve().as_posix()


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:].rstrip('.')}."


def _text(value: str) -> str:
    """A JSON string is a TOML basic string, apart from DEL, which no name of a file or finding has."""
    return json.dumps(value, ensure_ascii=False)


def _texts(values: Sequence[str]) -> str:
    return f"[{', '.join(map(_text, values))}]"
