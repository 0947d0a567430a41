"""Section 10: what must be said against these numbers, found by rule and not by memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from nearcase_eval.audit.frame import Frame
from nearcase_eval.audit.plan import Plan
from nearcase_eval.audit.report import Confounders, Flow, GroupGaps, GroupTable, Overall, Overlap, Point, Report
from nearcase_eval.audit.wording import number, percent, several
from nearcase_eval.estimate import State

FEW = 50
"""Patients with the finding below which every interval is wide."""

SHIFT = 2.0
"""Ratio of the prevalences of calibration and test above which a warning is due."""

MUCH_MISSING, LARGE_PATIENT = 0.1, 0.5


def limits_of(report: Report, frame: Frame, plan: Plan) -> tuple[str, ...]:
    """Returns one sentence for each limit that applies to a report whose small groups are hidden already."""
    found = [
        *_of_patients(frame, report.flow, report.system.overlaps),
        *_of_findings(report.flow, report.overall),
        *_of_points(frame, report.points),
        *_of_groups(report.groups, report.gaps, plan),
        *_of_confounders(report.confounders),
        *_of_plan(plan, report.flow),
    ]
    return tuple(dict.fromkeys(found))


def _of_patients(frame: Frame, flow: Flow, overlaps: Sequence[Overlap]) -> Iterator[str]:
    if not frame.has_patients:
        yield (
            "No column names the patients, so every image counts as a patient of its own. If patients have several "
            "images, all intervals are too narrow and no promise of a threshold holds."
        )
    for each in overlaps:
        if each.patients:
            yield (
                f"{several(each.patients, 'patient')} of the test set are also in the part {each.part!r}: the test is "
                "not independent, and its numbers are too good."
            )
    if flow.largest_patient_share > LARGE_PATIENT and flow.images_per_patient_max > 1:
        share = percent(flow.largest_patient_share)
        yield f"One patient has {share} of the test images: the numbers speak mostly of them."
    total = next(step.rows for step in reversed(flow.steps)) or 0
    for step in flow.missing:
        if step.rows is not None and total and step.rows > MUCH_MISSING * total:
            yield f"{percent(step.rows / total)} of the test images do not state {step.what}; they are in no gap."
    if frame.unmatched:
        yield f"{several(frame.unmatched, 'row')} had no line in the metadata."
    if frame.duplicates:
        yield f"{several(frame.duplicates, 'row')} repeated another row in every column and were dropped."


def _of_findings(flow: Flow, overall: Sequence[Overall]) -> Iterator[str]:
    for each in flow.findings:
        name = each.finding
        if not each.positives or each.positives == each.rows:
            yield f"{name}: the test rows hold one class only, so nothing can be said of how well it is found."
        elif min(each.positive_patients, each.patients - each.positive_patients) < FEW:
            few = min(each.positive_patients, each.patients - each.positive_patients)
            yield f"{name}: the smaller class has {several(few, 'patient')}, so intervals are wide."
        if each.unscored:
            yield f"{name}: {several(each.unscored, 'row')} without a finite score were left out; failures hide there."
        if each.uncertain:
            yield f"{name}: {several(each.uncertain, 'row')} labelled uncertain were left out."
        if each.rows and each.distinct_scores == 1:
            yield f"{name}: all scores are equal: they tell nothing."
        elif 1 < each.distinct_scores <= 10:
            yield f"{name}: the score has only {each.distinct_scores} different values, so many images are tied."
        if each.lowest_score is not None and (each.lowest_score < 0.0 or (each.highest_score or 0.0) > 1.0):
            yield (
                f"{name}: scores run from {each.lowest_score:g} to {each.highest_score:g}. Ranking and thresholds are "
                "fine with that; calibration and net benefit need probabilities and are left out."
            )
    for found in overall:
        if found.auroc.value is not None and found.auroc.high is not None and found.auroc.high < 0.5:
            yield (
                f"{found.finding}: the score ranks worse than chance; perhaps high scores mean absence, or columns are "
                "exchanged. Nothing was turned around."
            )


def _of_points(frame: Frame, points: Sequence[Point]) -> Iterator[str]:
    if any(point.chosen_on == "test rows" for point in points):
        yield (
            "Thresholds were chosen on the test rows: sensitivity and specificity are optimistic, and the operating "
            "points are exploratory, not pre-specified."
        )
    for point in points:
        if point.threshold.state is not State.OK:
            yield f"{point.finding} at {point.rule}: no threshold was set, {point.threshold.reason}."
    for outcome in frame.outcomes:
        there, here = (outcome.truth[frame.usable(outcome, part)] for part in (frame.calibrate, frame.test))
        shares = sorted(float(np.mean(each)) for each in (there, here) if each.size)
        if len(shares) == 2 and shares[0] > 0.0 and shares[1] / shares[0] > SHIFT:
            yield (
                f"{outcome.finding.name}: the prevalence is {percent(float(there.mean()))} in the calibration part and "
                f"{percent(float(here.mean()))} in the test part; predictive values do not carry over."
            )


def _of_groups(groups: Sequence[GroupTable], gaps: Sequence[GroupGaps], plan: Plan) -> Iterator[str]:
    absent = {
        (table.attribute, each.name)
        for table in groups
        for each in table.groups
        if each.n == 0 and each.state is not State.SUPPRESSED
    }
    for table in groups:
        for each in table.groups:
            if each.state is State.NOT_ESTIMABLE and (table.attribute, each.name) not in absent:
                yield (
                    f"{table.finding}, {table.attribute} {each.name}: not estimable, {each.reason}; the group is in no "
                    "gap, and nothing is known of its fairness."
                )
    for attribute in dict.fromkeys(name for name, _ in absent):
        names = ", ".join(sorted(name for where, name in absent if where == attribute))
        yield f"{attribute}: nobody among the tested is in {names}."
    family = max((each.family for each in gaps if not each.exploratory), default=0)
    if family > 1:
        yield f"{family} gaps were tested; adjusted p-values allow for that ({plan.adjust})."
    if any(each.exploratory for each in gaps):
        yield "Crossed groups are explored: they have their own family of tests and do not count toward the verdict."
    unequal = [table for table in groups if table.attribute and _prevalence_ratio(table) > SHIFT]
    for attribute in dict.fromkeys(table.attribute for table in unequal):
        yield f"Prevalence differs more than twofold between groups of {attribute}: do not compare their PPV or NPV."


def _prevalence_ratio(table: GroupTable) -> float:
    shares = [each.prevalence.value for each in table.groups if each.auroc.value is not None and each.prevalence.value]
    return max(shares) / min(shares) if len(shares) > 1 else 1.0


def _of_confounders(confounders: Sequence[Confounders]) -> Iterator[str]:
    for entry in confounders:
        for each in entry.baselines:
            difference = each.score_minus_baseline
            if difference is None or difference.estimate.low is None:
                continue
            if difference.estimate.low <= 0.0:
                yield (
                    f"{entry.finding}: {' and '.join(each.columns)} alone reach an AUROC of "
                    f"{number(each.auroc.value)}; the score is not shown to add anything to that."
                )


def _of_plan(plan: Plan, flow: Flow) -> Iterator[str]:
    there = {each.attribute for each in flow.demographics}
    if absent := [name for name in plan.attributes if name not in there]:
        yield f"No column of {' or '.join(absent)} was found: nothing is known of gaps between these groups."
    if not plan.tolerance_stated:
        limits = ", ".join(f"{name} {limit:g}" for name, limit in sorted(plan.tolerance.items()))
        yield f"No tolerance was stated; the defaults were taken ({limits}). They are a choice, not a standard."
    if not plan.replicates:
        yield "No resampling was done: p-values of gaps are from the chi-square test, and some intervals are left out."
    if not plan.suppress:
        yield "Small counts are shown. Before this report leaves the house, make it again with --suppress 11."
    yield "These are associations in the rows given: they do not tell why a gap exists, nor whether it is just."
