"""Fairness of a score between the groups of one attribute: AUROC, error rates at the one threshold, equalised odds."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from nearcase_eval.compared import RULES, Called, Compared, RateName, areas, called_at, chosen, compared, rates
from nearcase_eval.comparison import all_equal
from nearcase_eval.gaps import Gap, Gaps, Measured, gaps_to_rest, largest_gap, worst_of
from nearcase_eval.groups import Grouping, Minimum
from nearcase_eval.permutation import Chance, chance_of, permuted_area_gaps, permuted_rate_gaps
from nearcase_eval.sample import Ints, Sample

__all__ = [
    "RateName",
    "auroc_gaps",
    "auroc_gaps_of",
    "equalised_odds",
    "equalised_odds_of",
    "rate_gaps",
    "rate_gaps_of",
]


def auroc_gaps(
    y_true: ArrayLike,
    y_score: ArrayLike,
    grouping: Grouping,
    *,
    patient: ArrayLike | None = None,
    tolerance: float | None = None,
    minimum: Minimum | None = None,
    permutations: int = 0,
    seed: int = 0,
    level: float = 0.95,
) -> Gaps:
    """Returns the gaps of AUROC between the groups that can be estimated.

    Raises:
        InvalidInput: The arrays do not fit.
    """
    groups = compared(y_true, y_score, grouping, patient=patient, minimum=minimum)
    return auroc_gaps_of(groups, tolerance=tolerance, permutations=permutations, seed=seed, level=level)


def auroc_gaps_of(
    groups: Compared, *, tolerance: float | None = None, permutations: int = 0, seed: int = 0, level: float = 0.95
) -> Gaps:
    """Returns the gaps of AUROC between groups that were counted before."""
    kept = chosen(groups, positives=True, negatives=True)
    found = areas(groups, kept)
    chance = None
    if permutations and len(found.names) > 1:
        rows = kept.codes >= 0
        drawn = permuted_area_gaps(groups.data.rows(rows), kept.codes[rows], permutations=permutations, seed=seed)
        chance = chance_of(float(np.ptp(found.values)), drawn)
    return _gaps(found, chance, level, tolerance)


def rate_gaps(
    y_true: ArrayLike,
    y_score: ArrayLike,
    threshold: float,
    grouping: Grouping,
    rate: RateName,
    *,
    patient: ArrayLike | None = None,
    tolerance: float | None = None,
    minimum: Minimum | None = None,
    permutations: int = 0,
    seed: int = 0,
    level: float = 0.95,
) -> Gaps:
    """Returns the gaps of an error rate at the one threshold; groups need patients of the rate's own class only.

    Raises:
        InvalidInput: The arrays do not fit.
    """
    groups = compared(y_true, y_score, grouping, patient=patient, minimum=minimum)
    called, options = called_at(groups, threshold), {"permutations": permutations, "seed": seed}
    return rate_gaps_of(groups, called, rate, tolerance=tolerance, level=level, **options)


def rate_gaps_of(
    groups: Compared,
    called: Called,
    rate: RateName,
    *,
    tolerance: float | None = None,
    permutations: int = 0,
    seed: int = 0,
    level: float = 0.95,
) -> Gaps:
    """Returns the gaps of an error rate between groups that were counted before."""
    rule = RULES[rate]
    kept = chosen(groups, positives=rule.of_positives, negatives=not rule.of_positives)
    found = rates(groups, called, rate, kept)
    chance = _rate_chance(groups.data, called.threshold, kept.codes, [rate], [found], permutations, seed)
    return _gaps(found, chance, level, tolerance)


def equalised_odds(
    y_true: ArrayLike,
    y_score: ArrayLike,
    threshold: float,
    grouping: Grouping,
    *,
    patient: ArrayLike | None = None,
    tolerance: float | None = None,
    minimum: Minimum | None = None,
    permutations: int = 0,
    seed: int = 0,
    level: float = 0.95,
) -> Gap:
    """Returns the larger of the sensitivity and the false-alarm gap at the one threshold (Hardt 2016).

    Only groups that have enough patients of both classes take part, so that both gaps speak of the same groups.

    Raises:
        InvalidInput: The arrays do not fit.
    """
    groups = compared(y_true, y_score, grouping, patient=patient, minimum=minimum)
    called, options = called_at(groups, threshold), {"permutations": permutations, "seed": seed}
    return equalised_odds_of(groups, called, tolerance=tolerance, level=level, **options)


def equalised_odds_of(
    groups: Compared,
    called: Called,
    *,
    tolerance: float | None = None,
    permutations: int = 0,
    seed: int = 0,
    level: float = 0.95,
) -> Gap:
    """Returns the equalised-odds gap between groups that were counted before."""
    kept = chosen(groups, positives=True, negatives=True)
    names: list[RateName] = ["sensitivity", "false_alarm_rate"]
    found = [rates(groups, called, name, kept, rest_is_chosen=True) for name in names]
    chance = _rate_chance(groups.data, called.threshold, kept.codes, names, found, permutations, seed)
    return largest_gap(found, level=level, tolerance=tolerance, chance=chance, name="equalised odds")


def _rate_chance(
    data: Sample,
    threshold: float,
    codes: Ints,
    names: list[RateName],
    found: list[Measured],
    permutations: int,
    seed: int,
) -> Chance | None:
    if not permutations or len(found[0].names) < 2:
        return None
    called, kept = data.score >= threshold, codes >= 0
    pairs = [(called == RULES[each].of_called, data.truth == RULES[each].of_positives) for each in names]
    drawn = permuted_rate_gaps(
        data.rows(kept),
        codes[kept],
        [(hits[kept], among[kept]) for hits, among in pairs],
        permutations=permutations,
        seed=seed,
    )
    return chance_of(max(float(np.ptp(each.values)) for each in found), drawn)


def _gaps(found: Measured, chance: Chance | None, level: float, tolerance: float | None) -> Gaps:
    chi_square, df, p = all_equal(found.values, found.covariance)
    return Gaps(
        found.metric,
        found.attribute,
        worst_of(found),
        largest_gap([found], level=level, tolerance=tolerance, chance=chance),
        gaps_to_rest(found, level=level, tolerance=tolerance),
        chi_square,
        df,
        p,
        found.excluded,
    )
