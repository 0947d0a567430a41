"""Every statistic in every group of one attribute, at the one threshold that holds for all."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import ArrayLike

from nearcase_eval.auroc import auroc_of
from nearcase_eval.estimate import Estimate, State, not_estimable, suppressed
from nearcase_eval.groups import Grouping, Minimum, class_patients
from nearcase_eval.operating import operating_point_of
from nearcase_eval.proportions import proportion_of, rate_of
from nearcase_eval.sample import Sample, same_length, sample_of
from nearcase_eval.suppression import hidden


@dataclass(frozen=True, slots=True)
class Subgroup:
    """One group; counts are 0 when it is suppressed."""

    attribute: str
    name: str
    n: int
    positives: int
    patients: int
    positive_patients: int
    negative_patients: int
    prevalence: Estimate
    auroc: Estimate
    sensitivity: Estimate | None  # None when no threshold was given
    specificity: Estimate | None
    miss_rate: Estimate | None  # FNR, underdiagnosis
    false_alarm_rate: Estimate | None  # FPR, overdiagnosis
    ppv: Estimate | None
    npv: Estimate | None
    flagged: Estimate | None
    state: State
    reason: str


RATES = ("sensitivity", "specificity", "miss_rate", "false_alarm_rate", "ppv", "npv", "flagged")
"""Of the operating point."""

STATISTICS = ("prevalence", "auroc", *RATES)

COUNTS = ("n", "positives", "patients", "positive_patients", "negative_patients")


NEEDS = {
    "sensitivity": "positives",
    "miss_rate": "positives",
    "specificity": "negatives",
    "false_alarm_rate": "negatives",
}
"""The class whose patients are counted, where it is not both."""


def subgroups(
    y_true: ArrayLike,
    y_score: ArrayLike,
    grouping: Grouping,
    *,
    threshold: float | None = None,
    patient: ArrayLike | None = None,
    minimum: Minimum | None = None,
    level: float = 0.95,
) -> tuple[Subgroup, ...]:
    """Returns the groups in their order, those without rows as well.

    A statistic is estimated when its own classes have enough patients: sensitivity needs positives only.

    Raises:
        InvalidInput: The arrays do not fit.
    """
    data = sample_of(y_true, y_score, patient)
    same_length(data.n, grouping.codes.size, grouping.attribute)
    return subgroups_of(parts_of(data, grouping), grouping, [threshold], minimum=minimum or Minimum(), level=level)[0]


def parts_of(data: Sample, grouping: Grouping) -> tuple[Sample, ...]:
    """Returns the rows of each group, with patients numbered for each."""
    return tuple(data.rows(grouping.mask(place)).compact() for place in range(len(grouping.names)))


def subgroups_of(
    parts: Sequence[Sample],
    grouping: Grouping,
    thresholds: Sequence[float | None],
    *,
    minimum: Minimum,
    level: float,
) -> tuple[tuple[Subgroup, ...], ...]:
    """Returns the groups at each threshold; what does not depend on it is computed once."""
    plain = [_group(part, grouping, place, minimum, level) for place, part in enumerate(parts)]
    return tuple(
        tuple(_at(group, part, threshold, minimum, level) for group, part in zip(plain, parts, strict=True))
        for threshold in thresholds
    )


def suppress(
    groups: tuple[Subgroup, ...], least: int, *, tables: list[list[int]] | None = None
) -> tuple[Subgroup, ...]:
    """Returns the groups with the small ones hidden, and others where totals would reveal them (see suppression)."""
    counts = [[each.patients, each.positive_patients, each.negative_patients] for each in groups]
    if not counts:
        return groups
    mask = hidden(counts, least, tables=tables)
    return tuple(_hide(each) if secret else each for each, secret in zip(groups, mask, strict=True))


def _group(part: Sample, grouping: Grouping, place: int, minimum: Minimum, level: float) -> Subgroup:
    """A group without a threshold."""
    patients, positive, negative = class_patients(part)
    state, reason = minimum.assess(positive, negative) if part.n else (State.NOT_ESTIMABLE, "there are no rows")
    return Subgroup(
        grouping.attribute,
        grouping.names[place],
        part.n,
        part.positives,
        patients,
        positive,
        negative,
        proportion_of(rate_of(part.truth, part.patient, part.patients), level=level),
        _checked(auroc_of(part, level=level), state, reason),
        **dict.fromkeys(RATES),
        state=state,
        reason=reason,
    )


def _at(group: Subgroup, part: Sample, threshold: float | None, minimum: Minimum, level: float) -> Subgroup:
    """The same group with the rates of a threshold."""
    if threshold is None:
        return group
    point = operating_point_of(part, threshold, level=level)
    found: dict[str, Any] = {}
    for name in RATES:
        needs = NEEDS.get(name)
        state, reason = minimum.assess(
            group.positive_patients if needs != "negatives" else None,
            group.negative_patients if needs != "positives" else None,
        )
        found[name] = _checked(getattr(point, name), state, reason)
    return dataclasses.replace(group, **found)


def _checked(estimate: Estimate, state: State, reason: str) -> Estimate:
    """Gives an estimate the state of its group; one that is worse off by itself keeps its own."""
    if state is State.NOT_ESTIMABLE:
        return not_estimable(
            reason, n=estimate.n, patients=estimate.patients, method=estimate.method, level=estimate.level
        )
    if estimate.state is State.OK and state is not State.OK:
        return dataclasses.replace(estimate, state=state, reason=reason)
    return estimate


def _hide(group: Subgroup) -> Subgroup:
    changes: dict[str, Any] = {name: suppressed(found) for name in STATISTICS if (found := getattr(group, name))}
    changes |= dict.fromkeys(COUNTS, 0)
    reason = "hidden: small counts could point to persons"
    return dataclasses.replace(group, **changes, state=State.SUPPRESSED, reason=reason)
