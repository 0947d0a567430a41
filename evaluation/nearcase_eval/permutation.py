"""How large a gap would be by chance: group labels are permuted within outcome class and per patient.

The unit is a patient within a group, all of whose rows move together; units are exchanged among those with the same
outcome classes, so every permuted group has as many positive and negative units as the real one. A patient whose rows
lie in two groups (a birthday between two images) counts as two units.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from nearcase_eval.sample import Bools, Floats, Ints, Sample, sums
from nearcase_eval.weighted_pass import WORTH_COMPILING, Weights, has_numba, segment_of, weighted_areas

WIDTH = 64
"""Columns of weights at once; each permutation takes one for every group."""


@dataclass(frozen=True, slots=True)
class Chance:
    """What permuted labels say about the observed gap."""

    p: float  # (1 + permutations with a gap at least as large) / (1 + permutations): Phipson and Smyth 2010
    expected: float  # mean gap under no difference; above 0, because the largest gap is looked for
    permutations: int


def chance_of(observed: float, permuted: Floats) -> Chance:
    """Returns the p-value of a gap; gaps equal but for rounding count as equal."""
    reached = int(np.count_nonzero(permuted >= observed - 1e-12))
    return Chance((1 + reached) / (1 + permuted.size), float(permuted.mean()), int(permuted.size))


def permuted_area_gaps(data: Sample, groups: Ints, *, permutations: int, seed: int) -> Floats:
    """Returns the largest difference of AUROC between groups under each permutation, (R,).

    Args:
        data: Rows of the groups that are compared.
        groups: (N,) codes from 0; every group has both classes.
        permutations: How many.
        seed: Of numpy's PCG64.
    """
    units, owners, strata = _units(data, groups)
    part = segment_of(Sample(data.truth, data.score, units, owners.size))
    compiled = part.n * permutations * (int(groups.max()) + 1) >= WORTH_COMPILING and has_numba()
    found = [
        _spread(weighted_areas([part], weights, compiled=compiled).reshape(-1, int(owners.max()) + 1))
        for weights in _label_weights(owners, strata, permutations, seed)
    ]
    return np.concatenate(found)


def permuted_rate_gaps(
    data: Sample, groups: Ints, rates: Sequence[tuple[Bools, Bools]], *, permutations: int, seed: int
) -> Floats:
    """Returns the largest difference of any of the rates between groups under each permutation, (R,).

    Args:
        data: Rows of the groups that are compared.
        groups: (N,) codes from 0.
        rates: (hits, among) of each rate, both (N,).
        permutations: How many.
        seed: Of numpy's PCG64.
    """
    units, owners, strata = _units(data, groups)
    counts = [
        (
            sums(units, (hits & among).astype(np.float64), owners.size),
            sums(units, among.astype(np.float64), owners.size),
        )
        for hits, among in rates
    ]
    found = []
    for weights in _label_weights(owners, strata, permutations, seed):
        spreads = [_spread(_rates(hit, row, weights, int(owners.max()) + 1)) for hit, row in counts]
        found.append(np.max(spreads, axis=0))
    return np.concatenate(found)


def _units(data: Sample, groups: Ints) -> tuple[Ints, Ints, Ints]:
    """Returns (unit of each row, group of each unit, outcome classes of each unit)."""
    width = int(groups.max()) + 1
    keys, units = np.unique(data.patient * width + groups, return_inverse=True)
    positive = np.zeros(keys.size, dtype=np.int64)
    negative = np.zeros(keys.size, dtype=np.int64)
    positive[units[data.truth]] = 1
    negative[units[~data.truth]] = 1
    return units.astype(np.int64), (keys % width).astype(np.int64), 2 * positive + negative


def _label_weights(owners: Ints, strata: Ints, permutations: int, seed: int) -> Iterator[Weights]:
    """Yields (U, permutations x groups): 1 where a unit has the group's label."""
    width = int(owners.max()) + 1
    rng = np.random.default_rng(seed)
    blocks = [np.flatnonzero(strata == code) for code in np.unique(strata)]
    step = max(1, WIDTH // width)
    for start in range(0, permutations, step):
        count = min(step, permutations - start)
        table = np.zeros((owners.size, count * width), dtype=np.uint8)
        for column in range(count):
            for block in blocks:
                table[block, column * width + rng.permutation(owners[block])] = 1
        yield table


def _rates(hit: Floats, rows: Floats, weights: Weights, width: int) -> Floats:
    table = weights.astype(np.float64)
    found: Floats = ((hit @ table) / (rows @ table)).reshape(-1, width)
    return found


def _spread(values: Floats) -> Floats:
    found: Floats = values.max(axis=1) - values.min(axis=1)
    return found
