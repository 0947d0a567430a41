"""What both pages are made of: numbered sections with tables of text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Row = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """Cells as text; the first column names the row."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Section:
    """One of the eleven."""

    number: int
    title: str
    tables: tuple[Table, ...] = ()
    notes: tuple[str, ...] = ()


def table(caption: str, columns: Sequence[str], rows: Sequence[Row], note: str = "") -> Table:
    """Returns the table without columns in which no row says anything."""
    kept = [place for place, _ in enumerate(columns) if place == 0 or any(row[place] not in ("", "–") for row in rows)]
    if not rows:
        kept = list(range(len(columns)))
    return Table(
        caption,
        tuple(columns[place] for place in kept),
        tuple(tuple(row[place] for place in kept) for row in rows),
        note,
    )
