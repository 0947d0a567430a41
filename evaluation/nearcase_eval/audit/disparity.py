"""Sections 7 and 8: every group at the one threshold, and the gaps between groups."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from nearcase_eval.audit.attributes import Attribute, stated
from nearcase_eval.audit.frame import Frame, Outcome
from nearcase_eval.audit.plan import Plan
from nearcase_eval.audit.report import GroupCalibration, GroupGaps, GroupTable, Odds, Point
from nearcase_eval.bootstrap import bootstrap_areas, from_replicates
from nearcase_eval.calibration import fit_of
from nearcase_eval.compared import RateName, called_at, compared
from nearcase_eval.estimate import State
from nearcase_eval.fairness import auroc_gaps_of, equalised_odds_of, rate_gaps_of
from nearcase_eval.gaps import Gaps
from nearcase_eval.groups import Grouping
from nearcase_eval.multiplicity import adjust
from nearcase_eval.sample import Bools, Sample
from nearcase_eval.subgroups import Subgroup, parts_of, subgroups_of
from nearcase_eval.weighted_pass import segment_of

RATES: dict[RateName, str] = {"miss_rate": "fnr", "false_alarm_rate": "fpr"}
"""Gaps of error rates, and the tolerance of each. Those of sensitivity and specificity are the same gaps."""


def tables_of(
    frame: Frame, outcome: Outcome, attributes: Sequence[Attribute], points: Sequence[Point], plan: Plan
) -> Iterator[GroupTable]:
    """Yields section 7 of one finding: a table for each attribute and operating point."""
    rows = frame.usable(outcome, frame.test)
    data = frame.sample(outcome, rows)
    for attribute in attributes:
        plain = attribute.among(rows[frame.test])
        grouping = stated(plain) if plan.report_missing and plain.missing else plain
        parts, usable = parts_of(data, grouping), _usable(points)
        calibrated = tuple(_calibrated(parts, grouping, plan)) if _are_probabilities(data) else ()
        thresholds = [point.threshold.value if point else None for point in usable]
        tables = subgroups_of(parts, grouping, thresholds, minimum=plan.minimum, level=plan.level)
        for point, threshold, found in zip(usable, thresholds, tables, strict=True):
            if plan.interval == "bootstrap" and plan.replicates:
                found = _bootstrapped(data, grouping, found, plan)
            rule = point.rule if point else None
            yield GroupTable(outcome.finding.name, attribute.name, rule, threshold, found, calibrated)


def gaps_of(
    frame: Frame, outcome: Outcome, attributes: Sequence[Attribute], points: Sequence[Point], plan: Plan
) -> Iterator[GroupGaps | Odds]:
    """Yields section 8 of one finding; p-values are adjusted later, over all findings."""
    rows = frame.usable(outcome, frame.test)
    data = frame.sample(outcome, rows)
    options = {"permutations": plan.replicates, "seed": plan.seed}
    for attribute in attributes:
        name, grouping = outcome.finding.name, attribute.among(rows[frame.test])
        groups = compared(data.truth, data.score, grouping, patient=data.patient, minimum=plan.minimum)
        found = auroc_gaps_of(groups, tolerance=plan.tolerance["auroc"], level=plan.level, **options)
        yield _entry(name, attribute, None, found)
        for point in points:
            if point.threshold.value is None:
                continue
            called = called_at(groups, point.threshold.value)
            for rate, limit in RATES.items():
                gaps = rate_gaps_of(groups, called, rate, tolerance=plan.tolerance[limit], level=plan.level, **options)
                yield _entry(name, attribute, point, gaps)
            yield Odds(name, attribute.name, point.rule, equalised_odds_of(groups, called, level=plan.level, **options))


def adjusted(found: Sequence[GroupGaps], plan: Plan) -> tuple[GroupGaps, ...]:
    """Returns the gaps with adjusted p-values: the declared attributes are one family, the crossings another (BH)."""
    result = list(found)
    for exploratory, method in ((False, plan.adjust), (True, "bh")):
        places = [place for place, each in enumerate(found) if each.exploratory is exploratory]
        family = adjust({str(place): found[place].p for place in places}, "holm" if method == "holm" else "bh")
        for place in places:
            value = family.adjusted[str(place)]
            result[place] = dataclasses.replace(
                found[place], p_adjusted=value, adjustment=family.method, family=family.family
            )
    return tuple(result)


def _entry(finding: str, attribute: Attribute, point: Point | None, gaps: Gaps) -> GroupGaps:
    p, method = gaps.largest.p, "permutation of group labels within outcome class, by patient"
    if p is None and gaps.homogeneity_p is not None:
        p, method = gaps.homogeneity_p, f"chi-square of equal groups, {gaps.df} degrees of freedom"
    return GroupGaps(
        finding,
        attribute.name,
        gaps.metric,
        point.rule if point else None,
        point.threshold.value if point else None,
        attribute.exploratory,
        gaps,
        p,
        method if p is not None else "none: no test could be made",
        None,
        "",
        0,
    )


def _usable(points: Sequence[Point]) -> Sequence[Point | None]:
    """The points that have a threshold; one table without rates when none has."""
    return [point for point in points if point.threshold.value is not None] or [None]


def _calibrated(parts: Sequence[Sample], grouping: Grouping, plan: Plan) -> Iterator[GroupCalibration]:
    for part, name in zip(parts, grouping.names, strict=True):
        if not _too_few(part, plan):
            found = fit_of(part, votes=plan.votes, level=plan.level)
            yield GroupCalibration(name, found.in_the_large, found.slope, found.observed_expected, found.brier)


def _are_probabilities(data: Sample) -> bool:
    return data.n > 0 and float(data.score.min()) >= 0.0 and float(data.score.max()) <= 1.0


def _too_few(part: Sample, plan: Plan) -> bool:
    positive, negative = part.patients_among(part.truth), part.patients_among(~part.truth)
    return plan.minimum.assess(positive, negative)[0] is State.NOT_ESTIMABLE


def _bootstrapped(data: Sample, grouping: Grouping, found: tuple[Subgroup, ...], plan: Plan) -> tuple[Subgroup, ...]:
    """The same groups with intervals of AUROC from one patient bootstrap of all of them."""
    masks: list[Bools] = [grouping.mask(place) for place in range(len(found))]
    kept = [place for place, each in enumerate(found) if each.auroc.value is not None]
    if not kept:
        return found
    segments = [segment_of(data, masks[place]) for place in kept]
    drawn = bootstrap_areas(segments, data.patients, replicates=plan.replicates, seed=plan.seed)
    result = list(found)
    for place, row in zip(kept, drawn, strict=True):
        before = found[place].auroc
        after = from_replicates(
            before.value or 0.0, np.asarray(row), n=before.n, patients=before.patients, level=plan.level
        )
        if before.state is State.LOW_PRECISION and after.state is State.OK:
            after = dataclasses.replace(after, state=before.state, reason=before.reason)
        result[place] = dataclasses.replace(found[place], auroc=after)
    return tuple(result)
