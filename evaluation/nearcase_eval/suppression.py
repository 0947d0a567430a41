"""Hiding small groups in a report that leaves the house, so that totals do not give them away."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from nearcase.errors import InvalidInput
from nearcase_eval.sample import Bools, Ints

USUAL = 11
"""Counts of 1 to 10 are hidden: the cell size policy of the US Centers for Medicare and Medicaid Services."""


def hidden(counts: ArrayLike, least: int = USUAL, *, tables: Sequence[Sequence[int]] | None = None) -> Bools:
    """Returns which groups must be hidden, (G,).

    Args:
        counts: (G, C) of each group: patients, and those with positives and with negatives. 0 is no secret.
        least: The smallest count that may be shown.
        tables: Groups whose sum is published elsewhere: all of them, or the rows and columns of a crossing.

    A group with a count below `least` is hidden; then, wherever a published sum would reveal one hidden group, or a
    hidden total below `least`, the smallest group that is still shown is hidden too.

    Raises:
        InvalidInput: counts has no two axes, or `least` is below 1.
    """
    table = np.atleast_2d(np.asarray(counts, dtype=np.int64))
    if table.ndim != 2 or least < 1:
        raise InvalidInput(f"expected counts of (groups, kinds) and at least 1, got {table.shape} and {least}")
    found: Bools = np.any((table > 0) & (table < least), axis=1)
    sums = [list(range(len(table)))] if tables is None else [list(each) for each in tables]
    while (extra := _revealed(table, found, sums, least)) is not None:
        found[extra] = True
    return found


def crossing_tables(first: int, second: int) -> list[list[int]]:
    """Returns the rows and columns of a crossing of so many groups, as `hidden` wants them."""
    cells = np.arange(first * second).reshape(first, second)
    return [*cells.tolist(), *cells.T.tolist()]


def _revealed(table: Ints, found: Bools, sums: Sequence[Sequence[int]], least: int) -> int | None:
    """The next group to hide, if a published sum still gives something away."""
    for cells in sums:
        secret = [cell for cell in cells if found[cell]]
        shown = [cell for cell in cells if not found[cell] and table[cell].max(initial=0) > 0]
        if not secret or not shown:
            continue
        total = table[secret].sum(axis=0)
        if len(secret) == 1 or np.any((total > 0) & (total < least)):
            return min(shown, key=lambda cell: (int(table[cell, 0]), cell))
    return None
