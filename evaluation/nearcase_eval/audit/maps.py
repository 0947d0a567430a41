"""Section 11: which item of which guideline or law this report answers, and which it leaves to the developer.

Items of CLAIM 2024, STARD-AI 2025 and TRIPOD+AI 2024 are named by their subject; HTI-1 by the attribute groups of
45 CFR 170.315(b)(11)(iv)(B); the AI Act by the points of Annex IV. No dates of application are
printed, since they move.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from nearcase_eval.audit.report import MapEntry, Report

CLAIM, STARD, TRIPOD = "CLAIM 2024", "STARD-AI 2025", "TRIPOD+AI 2024"
HTI, ANNEX = "HTI-1, 45 CFR 170.315(b)(11)(iv)(B)", "EU AI Act, Annex IV"


class Rule(NamedTuple):
    """An item, the section that answers it, when it does, and what is missing when it does not."""

    source: str
    item: str
    section: int
    is_answered: Callable[[Report], bool]
    otherwise: str


def _always(report: Report) -> bool:
    return True


def _stated(*fields: str) -> Callable[[Report], bool]:
    return lambda report: all(each.text for each in report.use if each.field in fields)


def _prespecified(report: Report) -> bool:
    return bool(report.points) and all(point.prespecified for point in report.points)


def _calibrated(report: Report) -> bool:
    return all(each.calibration for each in report.overall)


def _has_groups(report: Report) -> bool:
    return any(each.gaps.largest.estimate.value is not None for each in report.gaps)


def _has_patients(report: Report) -> bool:
    return report.flow.unit == "patient"


def _checked_overlap(report: Report) -> bool:
    return _has_patients(report) and bool(report.system.overlaps)


def _identified(report: Report) -> bool:
    return bool(report.system.name and report.system.version)


def _purpose(report: Report) -> bool:
    return _identified(report) and _stated("intended_use")(report)


def _dated(report: Report) -> bool:
    return bool(report.run.date)


def _external(report: Report) -> bool:
    return False


CARD = "say it in the card (--card)"
GROUPS = "needs groups that can be estimated"
ELSEWHERE = "not in an audit of scores"

RULES = (
    Rule(CLAIM, "data flow with counts and exclusions", 4, _always, ""),
    Rule(
        CLAIM,
        "data partitions are disjoint at the level of patients",
        2,
        _checked_overlap,
        "needs --patient and --split",
    ),
    Rule(CLAIM, "demographics of the test partition", 4, _has_groups, "needs age, sex or other columns"),
    Rule(CLAIM, "metrics with their statistical uncertainty", 5, _always, ""),
    Rule(CLAIM, "reference standard", 3, _stated("reference_standard"), CARD),
    Rule(CLAIM, "how the operating threshold was chosen", 6, _prespecified, "the threshold is exploratory"),
    Rule(STARD, "two-by-two counts, accuracy with intervals", 6, _always, ""),
    Rule(STARD, "threshold pre-specified or exploratory", 6, _always, ""),
    Rule(STARD, "indeterminate and missing results", 4, _always, ""),
    Rule(STARD, "provenance and partition of the data", 3, _stated("data_origin"), CARD),
    Rule(STARD, "assessment of fairness and bias", 8, _has_groups, GROUPS),
    Rule(TRIPOD, "participants and events, in all and by group", 7, _has_groups, GROUPS),
    Rule(TRIPOD, "discrimination with intervals", 5, _always, ""),
    Rule(TRIPOD, "calibration", 5, _calibrated, "scores are not probabilities"),
    Rule(TRIPOD, "clinical utility", 5, _calibrated, "net benefit needs probabilities"),
    Rule(TRIPOD, "performance in groups, heterogeneity", 8, _has_groups, GROUPS),
    Rule(TRIPOD, "missing data", 4, _always, ""),
    Rule(HTI, "(1) details and output", 2, _identified, CARD),
    Rule(HTI, "(2) purpose: intended use, users, population", 3, _stated("intended_use", "users", "population"), CARD),
    Rule(HTI, "(3) cautioned out-of-scope use", 3, _stated("out_of_scope"), CARD),
    Rule(HTI, "(4) development details and input features", 3, _external, ELSEWHERE),
    Rule(HTI, "(5) process to ensure fairness in development", 3, _external, ELSEWHERE),
    Rule(HTI, "(6) external validation process", 3, _stated("data_origin"), CARD),
    Rule(HTI, "(7) validity and fairness in test data", 8, _has_groups, GROUPS),
    Rule(HTI, "(8) ongoing maintenance and monitoring", 3, _stated("monitoring"), CARD),
    Rule(HTI, "(9) update and continued validation schedule", 3, _external, ELSEWHERE),
    Rule(ANNEX, "1(a) intended purpose and version", 2, _purpose, CARD),
    Rule(ANNEX, "2(g) validation, accuracy, potentially discriminatory impacts", 8, _has_groups, GROUPS),
    Rule(ANNEX, "2(g) test logs and reports dated and signed", 1, _dated, "state --date, and sign"),
    Rule(ANNEX, "3 accuracy for the persons or groups of the intended use", 7, _has_groups, GROUPS),
    Rule(ANNEX, "3 limits and foreseeable unintended outcomes", 10, _always, ""),
    Rule(ANNEX, "2(e) human oversight", 3, _stated("decision_role"), CARD),
)


def maps_of(report: Report) -> tuple[MapEntry, ...]:
    """Returns section 11 of a report whose other sections are done."""
    return tuple(_entry(rule, report) for rule in RULES)


def _entry(rule: Rule, report: Report) -> MapEntry:
    answered = rule.is_answered(report)
    return MapEntry(rule.source, rule.item, rule.section, answered, "" if answered else rule.otherwise)
