"""AUROC and error rates in the groups of one attribute, with their covariance and their difference to the rest.

The rows are sorted and counted once for all groups: the rest of a group is everyone less the group.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from nearcase_eval.auroc import se_of
from nearcase_eval.cells import Cells, Moments, cells_of, complement, moments_of
from nearcase_eval.clustered import Area, area_from, covariance, difference, variance_of
from nearcase_eval.delong import Ranked, ranked
from nearcase_eval.estimate import State
from nearcase_eval.gaps import Excluded, Measured
from nearcase_eval.groups import Grouping, Minimum
from nearcase_eval.sample import Bools, Floats, Ints, Sample, same_length, sample_of

RateName = Literal["sensitivity", "specificity", "miss_rate", "false_alarm_rate"]


@dataclass(frozen=True, slots=True)
class Rule:
    """Which class a rate is about, and whether the rows that are called count or those that are not."""

    of_positives: bool
    of_called: bool
    higher_is_worse: bool


RULES: dict[RateName, Rule] = {
    "sensitivity": Rule(True, True, False),
    "miss_rate": Rule(True, False, True),
    "specificity": Rule(False, False, False),
    "false_alarm_rate": Rule(False, True, True),
}
"""miss_rate is the FNR (underdiagnosis), false_alarm_rate the FPR (overdiagnosis, and underdiagnosis when the label is
"no finding": Seyyed-Kalantari 2021)."""


@dataclass(frozen=True, slots=True)
class Compared:
    """A sample and its groups, counted once for all gaps of one attribute."""

    data: Sample
    grouping: Grouping
    minimum: Minimum
    cells: Cells
    positives: Floats  # (U,) rows of each cell
    negatives: Floats


@dataclass(frozen=True, slots=True)
class Called:
    """What one threshold calls: the called rows among those of each class, in every group."""

    threshold: float
    positives: Floats  # (U,) called rows of each cell
    negatives: Floats
    among_positives: Moments
    among_negatives: Moments


@dataclass(frozen=True, slots=True)
class Chosen:
    """The groups that can be estimated."""

    places: tuple[int, ...]  # in the grouping
    names: tuple[str, ...]
    excluded: tuple[Excluded, ...]
    codes: Ints  # (N,) index into names, -1 for all other rows
    cells: Bools  # (U,) whether a cell is of these groups


def compared(
    y_true: ArrayLike,
    y_score: ArrayLike,
    grouping: Grouping,
    *,
    patient: ArrayLike | None = None,
    minimum: Minimum | None = None,
) -> Compared:
    """Returns the groups, counted.

    Raises:
        InvalidInput: The arrays do not fit.
    """
    data = sample_of(y_true, y_score, patient)
    same_length(data.n, grouping.codes.size, grouping.attribute)
    cells = cells_of(data, grouping)
    return Compared(data, grouping, minimum or Minimum(), cells, cells.count(data.truth), cells.count(~data.truth))


def called_at(groups: Compared, threshold: float) -> Called:
    """Returns what the threshold calls."""
    called, cells = groups.data.score >= threshold, groups.cells
    hits, alarms = cells.count(groups.data.truth & called), cells.count(~groups.data.truth & called)
    among = moments_of(cells, hits, groups.positives), moments_of(cells, alarms, groups.negatives)
    return Called(threshold, hits, alarms, *among)


def chosen(groups: Compared, *, positives: bool, negatives: bool) -> Chosen:
    """Returns the groups that have enough patients of the classes that are needed."""
    cells = groups.cells
    rows = cells.by_group(groups.positives + groups.negatives)
    counts = [
        cells.by_group(each > 0.0).astype(np.int64) if needed else None
        for each, needed in ((groups.positives, positives), (groups.negatives, negatives))
    ]
    places: list[int] = []
    excluded: list[Excluded] = []
    for place, name in enumerate(groups.grouping.names):
        state, reason = groups.minimum.assess(*(None if each is None else int(each[place]) for each in counts))
        if state is State.NOT_ESTIMABLE:
            excluded.append(Excluded(name, reason if rows[place] else "there are no rows"))
        else:
            places.append(place)
    new = np.full(cells.groups + 1, -1, dtype=np.int64)  # the last is for rows without a group
    new[places] = np.arange(len(places))
    names = tuple(groups.grouping.names[place] for place in places)
    return Chosen(tuple(places), names, tuple(excluded), new[groups.grouping.codes], new[cells.group] >= 0)


def areas(groups: Compared, kept: Chosen) -> Measured:
    """Returns the AUROC in the chosen groups; the rest of a group is all other rows that state the attribute."""
    data, codes = groups.data, groups.grouping.codes
    order = ranked(data.truth, data.score) if kept.places else None
    parts: list[Area] = []
    to_rest: list[tuple[float, float]] = []
    for place in kept.places:
        area = _area(data, order, codes == place)
        rest = _area(data, order, (codes >= 0) & (codes != place))
        if area is not None:
            parts.append(area)
            to_rest.append(_area_to_rest(area, rest))
    matrix = covariance(parts) if parts else np.zeros((0, 0))
    np.fill_diagonal(matrix, [se_of(area) ** 2 for area in parts])
    return Measured(
        "auroc",
        groups.grouping.attribute,
        kept.names,
        np.array([area.value for area in parts]),
        matrix,
        tuple(to_rest),
        False,
        int(np.count_nonzero(kept.codes >= 0)),
        groups.cells.persons(kept.cells),
        kept.excluded,
    )


def rates(groups: Compared, called: Called, rate: RateName, kept: Chosen, *, rest_is_chosen: bool = False) -> Measured:
    """Returns a rate in the chosen groups; the rest is all other rows that state the attribute, or the chosen only."""
    rule = RULES[rate]
    moments, rows = _moments(groups, called, rule, kept.cells if rest_is_chosen else None)
    tallies = [moments.group(place) for place in kept.places]
    rests = [moments.rest(place) for place in kept.places]
    matrix = moments.covariance()[np.ix_(kept.places, kept.places)] if kept.places else np.zeros((0, 0))
    np.fill_diagonal(matrix, [each.floored_variance for each in tallies])
    to_rest = []
    for place, group, rest in zip(kept.places, tallies, rests, strict=True):
        if rest is None:
            to_rest.append((math.nan, math.nan))
            continue
        shared = moments.covariance_with_rest(place, group, rest)
        variance = group.floored_variance + rest.floored_variance - 2.0 * (shared if math.isfinite(shared) else 0.0)
        to_rest.append((group.value - rest.value, math.sqrt(max(variance, 0.0))))
    return Measured(
        rate,
        groups.grouping.attribute,
        kept.names,
        np.array([each.value for each in tallies]),
        matrix,
        tuple(to_rest),
        rule.higher_is_worse,
        int(rows[kept.cells].sum()),
        groups.cells.persons(kept.cells & (rows > 0.0)),
        kept.excluded,
    )


def _moments(groups: Compared, called: Called, rule: Rule, only: Bools | None) -> tuple[Moments, Floats]:
    """The rate's moments and the rows of each cell that it is about; only: of these cells."""
    rows = groups.positives if rule.of_positives else groups.negatives
    found = called.among_positives if rule.of_positives else called.among_negatives
    if only is not None and not only.all():
        hits = called.positives if rule.of_positives else called.negatives
        found = moments_of(groups.cells, np.where(only, hits, 0.0), np.where(only, rows, 0.0))
    return found if rule.of_called else complement(found), rows


def _area(data: Sample, order: Ranked | None, mask: Bools) -> Area | None:
    part = data.rows(mask)
    if order is None or not 0 < part.positives < part.n:
        return None
    return area_from(part, order.within(mask[data.truth], mask[~data.truth]))


def _area_to_rest(area: Area, rest: Area | None) -> tuple[float, float]:
    if rest is None:
        return math.nan, math.nan
    value, variance = difference(area, rest)
    se = se_of(area)
    floor = max(se**2 - variance_of(area), 0.0)  # not 0 where the group does not vary
    return value, math.sqrt(variance + floor) if math.isfinite(variance + floor) else se + se_of(rest)
