"""Counts of each patient in each group: one cell for every (patient, group) that occurs.

Every rate of every group, of all other groups together ("the rest") and every covariance between them follows from sums
over patients of products of such counts, so one pass over the rows serves all groups. The counts are whole numbers and
their sums exact.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from nearcase_eval.groups import Grouping
from nearcase_eval.proportions import Tally
from nearcase_eval.sample import Bools, Floats, Ints, Sample


@dataclass(frozen=True, slots=True)
class Cells:
    """U cells, those of a patient side by side, and which cell each row is in."""

    groups: int  # K
    cell: Ints  # (N,) -1 for rows without a group
    patient: Ints  # (U,)
    group: Ints  # (U,)
    pairs: tuple[Ints, Ints]  # every two cells of one patient

    def count(self, rows: Bools) -> Floats:
        """Returns how many of the rows (N,) each cell has, (U,)."""
        cell = self.cell[rows]
        return np.bincount(cell[cell >= 0], minlength=self.group.size).astype(np.float64)

    def by_group(self, values: Floats | Bools) -> Floats:
        """Returns the sum of the cells of each group, (K,)."""
        return np.bincount(self.group, weights=values, minlength=self.groups).astype(np.float64, copy=False)

    def products(self, first: Floats, second: Floats) -> Floats:
        """Returns the sum over patients of first in one group times second in another, (K, K)."""
        one, other = self.pairs
        width = self.groups
        rows, columns = self.group[one] * width + self.group[other], self.group[other] * width + self.group[one]
        found = np.bincount(self.group * (width + 1), weights=first * second, minlength=width * width)
        found = found + np.bincount(rows, weights=first[one] * second[other], minlength=width * width)
        found = found + np.bincount(columns, weights=first[other] * second[one], minlength=width * width)
        return found.astype(np.float64, copy=False).reshape(width, width)

    def persons(self, chosen: Bools) -> int:
        """Returns how many different patients the chosen cells (U,) have."""
        found = self.patient[chosen]
        return int(np.count_nonzero(found[1:] != found[:-1])) + int(found.size > 0)


def cells_of(data: Sample, grouping: Grouping) -> Cells:
    """Returns the cells of a sample's rows."""
    width, known = len(grouping.names), grouping.codes >= 0
    keys, inverse = np.unique(data.patient[known] * width + grouping.codes[known], return_inverse=True)
    cell = np.full(data.n, -1, dtype=np.int64)
    cell[known] = inverse
    patient = keys // max(width, 1)
    return Cells(width, cell, patient, keys - patient * width, _pairs(patient))


def _pairs(patient: Ints) -> tuple[Ints, Ints]:
    """Every two places with the same patient; the patients ascend."""
    found, apart = [np.zeros(0, dtype=np.int64)], 1
    while (same := np.flatnonzero(patient[apart:] == patient[: patient.size - apart])).size:
        found.append(same)
        apart += 1
    one = np.concatenate(found)
    return one, one + np.repeat(np.arange(len(found)), [each.size for each in found])


@dataclass(frozen=True, slots=True)
class Moments:
    """Hits and rows of K groups, and the sums over patients of their products between every two groups."""

    hits: Floats  # (K,)
    rows: Floats  # (K,)
    patients: Floats  # (K,) with a row in the group
    sole: Floats  # (K,) with rows in the group and in no other
    everyone: int  # patients with a row in any group
    hits_hits: Floats  # (K, K)
    hits_rows: Floats  # (K, K)
    rows_rows: Floats  # (K, K)

    def group(self, place: int) -> Tally:
        """Returns the rate of a group that has rows."""
        sums = (self.hits_hits[place, place], self.hits_rows[place, place], self.rows_rows[place, place])
        return _tally(self.hits[place], self.rows[place], self.patients[place], *sums)

    def rest(self, place: int) -> Tally | None:
        """Returns the rate of all other groups together; None when they have no rows."""
        rows = self.rows.sum() - self.rows[place]
        if rows == 0.0:
            return None
        sums = (_without(table, place) for table in (self.hits_hits, self.hits_rows, self.rows_rows))
        return _tally(self.hits.sum() - self.hits[place], rows, self.everyone - self.sole[place], *sums)

    def covariance(self) -> Floats:
        """Returns the covariance (K, K) of the groups' rates; that of a group without rows is 0."""
        rows = np.maximum(self.rows, 1.0)
        rate, factor = self.hits / rows, _factor(self.patients) / rows
        mixed = self.hits_rows * rate
        table = self.hits_hits - mixed - mixed.T + np.outer(rate, rate) * self.rows_rows
        return table * np.outer(factor, factor)

    def covariance_with_rest(self, place: int, group: Tally, rest: Tally) -> float:
        """Returns the covariance of a group's rate with that of all others together."""
        both = [
            float(table[place].sum() - table[place, place])
            for table in (self.hits_hits, self.hits_rows, self.hits_rows.T, self.rows_rows)
        ]
        a, b = group.value, rest.value
        total = both[0] - b * both[1] - a * both[2] + a * b * both[3]
        factors = float(_factor(np.array([group.patients, rest.patients], dtype=np.float64)).prod())
        return total * factors / (group.n * rest.n)


def moments_of(cells: Cells, hits: Floats, rows: Floats) -> Moments:
    """Returns the moments of the cells' hits and rows, both (U,)."""
    there = rows > 0.0
    sole = there
    if cells.pairs[0].size:
        sole = there & (rows == np.bincount(cells.patient, weights=rows)[cells.patient])
    return Moments(
        cells.by_group(hits),
        cells.by_group(rows),
        cells.by_group(there),
        cells.by_group(sole),
        cells.persons(there),
        cells.products(hits, hits),
        cells.products(hits, rows),
        cells.products(rows, rows),
    )


def complement(found: Moments) -> Moments:
    """Returns the moments of the rows that are no hits."""
    return Moments(
        found.rows - found.hits,
        found.rows,
        found.patients,
        found.sole,
        found.everyone,
        found.rows_rows - found.hits_rows - found.hits_rows.T + found.hits_hits,
        found.rows_rows - found.hits_rows,
        found.rows_rows,
    )


def _tally(hits: float, rows: float, patients: float, hits_hits: float, hits_rows: float, rows_rows: float) -> Tally:
    """The variance I/(I-1) sum (x_p - r n_p)^2 / N^2 in whole numbers, which nothing cancels in."""
    k, n, seen = int(hits), int(rows), int(patients)
    squares = n * n * int(hits_hits) - 2 * k * n * int(hits_rows) + k * k * int(rows_rows)
    factor = seen / (seen - 1.0) if seen > 1 else math.nan
    return Tally(k, n, seen, float(n) ** 2 / float(rows_rows), factor * (squares / n**4))


def _without(table: Floats, place: int) -> float:
    """The sum of a table (K, K) without a row and column."""
    return float(table.sum() - table[place].sum() - table[:, place].sum() + table[place, place])


def _factor(patients: Floats) -> Floats:
    """sqrt(I/(I-1)); NaN for a single patient."""
    others = np.where(patients > 1.0, patients - 1.0, np.nan)
    found: Floats = np.sqrt(patients / others)
    return found
