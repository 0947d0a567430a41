"""Fairness of a score between the groups of one attribute: AUROC, error rates at the one threshold, equalised odds."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from nearcase_eval.auroc import se_of
from nearcase_eval.clustered import Area, area_of, covariance, difference
from nearcase_eval.comparison import all_equal
from nearcase_eval.estimate import State
from nearcase_eval.gaps import Excluded, Gap, Gaps, Measured, gaps_to_rest, largest_gap, worst_of
from nearcase_eval.groups import Grouping, Minimum, class_patients
from nearcase_eval.permutation import Chance, chance_of, permuted_area_gaps, permuted_rate_gaps
from nearcase_eval.proportions import Rate, rate_of
from nearcase_eval.sample import Bools, Floats, Ints, Sample, same_length, sample_of

RateName = Literal["sensitivity", "specificity", "miss_rate", "false_alarm_rate"]


@dataclass(frozen=True, slots=True)
class Rule:
    """Which rows a rate is about and which of them count, from (truth, called)."""

    among: Callable[[Bools, Bools], Bools]
    hits: Callable[[Bools, Bools], Bools]
    needs_positives: bool
    higher_is_worse: bool


RULES: dict[RateName, Rule] = {
    "sensitivity": Rule(lambda truth, called: truth, lambda truth, called: called, True, False),
    "miss_rate": Rule(lambda truth, called: truth, lambda truth, called: ~called, True, True),
    "specificity": Rule(lambda truth, called: ~truth, lambda truth, called: ~called, False, False),
    "false_alarm_rate": Rule(lambda truth, called: ~truth, lambda truth, called: called, False, True),
}
"""miss_rate is the FNR (underdiagnosis), false_alarm_rate the FPR (overdiagnosis, and underdiagnosis when the label is
"no finding": Seyyed-Kalantari 2021)."""


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
    data = _known(y_true, y_score, patient, grouping)
    found, codes = _areas(data, grouping, minimum or Minimum())
    chance = None
    if permutations and len(found.names) > 1:
        drawn = permuted_area_gaps(data.rows(codes >= 0), codes[codes >= 0], permutations=permutations, seed=seed)
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
    data = _known(y_true, y_score, patient, grouping)
    found, codes = _rates(data, threshold, grouping, rate, minimum or Minimum())
    chance = _rate_chance(data, threshold, codes, [rate], [found], permutations, seed)
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
    data, chosen = _known(y_true, y_score, patient, grouping), minimum or Minimum()
    both, _, codes = _estimable(data, grouping, chosen, positives=True, negatives=True)
    names: list[RateName] = ["sensitivity", "false_alarm_rate"]
    kept = Grouping(grouping.attribute, both, codes)
    found = [_rates(data, threshold, kept, name, Minimum(0, 0, 0))[0] for name in names]
    chance = _rate_chance(data, threshold, codes, names, found, permutations, seed)
    return largest_gap(found, level=level, tolerance=tolerance, chance=chance, name="equalised odds")


def _known(y_true: ArrayLike, y_score: ArrayLike, patient: ArrayLike | None, grouping: Grouping) -> Sample:
    data = sample_of(y_true, y_score, patient)
    same_length(data.n, grouping.codes.size, grouping.attribute)
    return data


def _estimable(
    data: Sample, grouping: Grouping, minimum: Minimum, *, positives: bool, negatives: bool
) -> tuple[tuple[str, ...], tuple[Excluded, ...], Ints]:
    """Returns (names that stay, names that do not, new codes with -1 for all other rows)."""
    codes = np.full(data.n, -1, dtype=np.int64)
    names: list[str] = []
    excluded: list[Excluded] = []
    for place, name in enumerate(grouping.names):
        mask = grouping.mask(place)
        _, positive, negative = class_patients(data, mask)
        state, reason = minimum.assess(positive if positives else None, negative if negatives else None)
        if state is State.NOT_ESTIMABLE:
            excluded.append(Excluded(name, reason if mask.any() else "there are no rows"))
            continue
        codes[mask] = len(names)
        names.append(name)
    return tuple(names), tuple(excluded), codes


def _areas(data: Sample, grouping: Grouping, minimum: Minimum) -> tuple[Measured, Ints]:
    names, excluded, codes = _estimable(data, grouping, minimum, positives=True, negatives=True)
    areas = [area_of(data.rows(codes == place)) for place in range(len(names))]
    kept = [area for area in areas if area is not None]
    rests = [area_of(data.rows((grouping.codes >= 0) & (codes != place))) for place in range(len(kept))]
    matrix = covariance(kept) if kept else np.zeros((0, 0))
    np.fill_diagonal(matrix, [se_of(area) ** 2 for area in kept])
    found = Measured(
        "auroc",
        grouping.attribute,
        names,
        np.array([area.value for area in kept]),
        matrix,
        tuple(_area_to_rest(area, rest) for area, rest in zip(kept, rests, strict=True)),
        False,
        int(np.count_nonzero(codes >= 0)),
        data.patients_among(codes >= 0),
        excluded,
    )
    return found, codes


def _area_to_rest(area: Area, rest: Area | None) -> tuple[float, float]:
    if rest is None:
        return math.nan, math.nan
    value, variance = difference(area, rest)
    floor = max(se_of(area) ** 2 - float(covariance([area])[0, 0]), 0.0)  # not 0 where the group does not vary
    return value, math.sqrt(variance + floor) if math.isfinite(variance + floor) else se_of(area) + se_of(rest)


def _rates(
    data: Sample, threshold: float, grouping: Grouping, rate: RateName, minimum: Minimum
) -> tuple[Measured, Ints]:
    rule, called = RULES[rate], data.score >= threshold
    among, hits = rule.among(data.truth, called), rule.hits(data.truth, called)
    names, excluded, codes = _estimable(
        data, grouping, minimum, positives=rule.needs_positives, negatives=not rule.needs_positives
    )

    def rate_in(mask: Bools) -> Rate | None:
        return rate_of(hits[mask & among], data.patient[mask & among], data.patients)

    groups = [each for place in range(len(names)) if (each := rate_in(codes == place)) is not None]
    rests = [rate_in((grouping.codes >= 0) & (codes != place)) for place in range(len(groups))]
    kept = among & (codes >= 0)
    found = Measured(
        rate,
        grouping.attribute,
        names,
        np.array([each.value for each in groups]),
        _rate_covariance(groups),
        tuple(_rate_to_rest(each, rest) for each, rest in zip(groups, rests, strict=True)),
        rule.higher_is_worse,
        int(np.count_nonzero(kept)),
        data.patients_among(kept),
        excluded,
    )
    return found, codes


def _rate_covariance(groups: list[Rate]) -> Floats:
    if not groups:
        return np.zeros((0, 0))
    parts = np.array([each.part for each in groups])
    matrix: Floats = parts @ parts.T
    np.fill_diagonal(matrix, [each.floored_variance for each in groups])
    return matrix


def _rate_to_rest(group: Rate, rest: Rate | None) -> tuple[float, float]:
    if rest is None:
        return math.nan, math.nan
    shared = float(group.part @ rest.part)
    variance = group.floored_variance + rest.floored_variance - 2.0 * (shared if math.isfinite(shared) else 0.0)
    return group.value - rest.value, math.sqrt(max(variance, 0.0))


def _rate_chance(
    data: Sample,
    threshold: float,
    codes: Ints,
    rates: list[RateName],
    found: list[Measured],
    permutations: int,
    seed: int,
) -> Chance | None:
    if not permutations or len(found[0].names) < 2:
        return None
    called, kept = data.score >= threshold, codes >= 0
    pairs = [(RULES[each].hits(data.truth, called), RULES[each].among(data.truth, called)) for each in rates]
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
