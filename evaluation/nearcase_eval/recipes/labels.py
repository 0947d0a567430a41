"""How a finding is read from a row of a set's own table."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nearcase_eval.recipes.recipe import NEGATIVE, POSITIVE, UNKNOWN
from nearcase_eval.table import Row


@dataclass(frozen=True, slots=True)
class Label:
    """A finding, the column that tells it, and how; the text of a cell gives POSITIVE, NEGATIVE or UNKNOWN."""

    name: str
    column: str
    read: Callable[[str], str]

    def of(self, row: Row) -> str:
        """Returns what a row says of the finding."""
        return self.read(row[self.column])


def flag(name: str, column: str) -> Label:
    """1 and 0, also as 1.0 and 0.0; a blank and -1 (uncertain, CheXpert) tell nothing."""
    words = {"1": POSITIVE, "1.0": POSITIVE, "0": NEGATIVE, "0.0": NEGATIVE}
    return Label(name, column, lambda text: words.get(text, UNKNOWN))


def flags(columns: Sequence[str]) -> tuple[Label, ...]:
    """One flag for each column, named after it."""
    return tuple(flag(named(column), column) for column in columns)


def one_of(column: str, names: dict[str, str]) -> tuple[Label, ...]:
    """One finding against the others for each value of a column; a value that is not listed tells nothing."""

    def reader(value: str) -> Callable[[str], str]:
        return lambda text: POSITIVE if text == value else NEGATIVE if text in names else UNKNOWN

    return tuple(Label(name, column, reader(value)) for value, name in names.items())


def listed(column: str, words: Sequence[str], separator: str) -> tuple[Label, ...]:
    """One finding for each word of a column that lists all that was found."""

    def reader(word: str) -> Callable[[str], str]:
        return lambda text: (POSITIVE if word in text.split(separator) else NEGATIVE) if text else UNKNOWN

    return tuple(Label(named(word), column, reader(word)) for word in words)


def at_least(name: str, column: str, limit: float) -> Label:
    """Positive from a limit on; a cell that is no number tells nothing."""

    def read(text: str) -> str:
        try:
            return POSITIVE if float(text) >= limit else NEGATIVE
        except ValueError:
            return UNKNOWN

    return Label(name, column, read)


def named(text: str) -> str:
    """Returns a finding's name as it stands in our tables: "Pleural Effusion" becomes pleural_effusion."""
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")
