"""The report as one tidy table: a line for each number, with its interval and counts."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

from nearcase_eval.audit.report import Overall, Report
from nearcase_eval.estimate import Estimate
from nearcase_eval.subgroups import RATES

COLUMNS = (
    "section",
    "finding",
    "attribute",
    "group",
    "rule",
    "metric",
    "value",
    "low",
    "high",
    "n",
    "patients",
    "k",
    "state",
    "reason",
    "method",
    "p",
    "p_adjusted",
    "verdict",
)
Line = dict[str, object]
CALIBRATION = (
    "in_the_large",
    "intercept",
    "slope",
    "observed_expected",
    "ece_width",
    "ece_mass",
    "brier",
    "brier_skill",
)
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""A spreadsheet runs a cell that begins so."""


def to_csv(report: Report) -> str:
    """Returns the table; numbers are unrounded, a number that does not exist is an empty cell."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for line in _lines(report):
        writer.writerow({name: _safe(value) for name, value in line.items()})
    return stream.getvalue()


def _safe(value: object) -> object:
    """Text that a spreadsheet would take for a formula gets a quote before it."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value


def _lines(report: Report) -> Iterator[Line]:
    for each in report.overall:
        for metric, estimate in _overall(each):
            yield _line("overall", estimate, finding=each.finding, group="all", metric=metric)
    if report.averages:
        for metric in ("macro", "micro"):
            yield _line("overall", getattr(report.averages, metric), finding="all", group="all", metric=metric)
    yield from _points(report)
    for table in report.groups:
        for group in table.groups:
            where = {"finding": table.finding, "attribute": table.attribute, "group": group.name, "rule": table.rule}
            for metric in ("prevalence", "auroc", *RATES):
                estimate = getattr(group, metric)
                if estimate is not None:
                    yield _line("groups", estimate, metric=metric, **where)
    yield from _gaps(report)
    for entry in report.versus:
        line = {"finding": entry.finding, "attribute": entry.attribute, "group": entry.group, "p": entry.difference.p}
        metric = f"auroc {entry.difference.first} - {entry.difference.second}"
        yield _line("comparison", entry.difference.estimate, metric=metric, **line)
    for confounders in report.confounders:
        for baseline in confounders.baselines:
            name = f"auroc of {' and '.join(baseline.columns)} alone"
            yield _line("confounders", baseline.auroc, finding=confounders.finding, metric=name)
    for row in report.metrics:
        line = {"finding": row.finding, "attribute": row.attribute, "group": row.group, "metric": row.metric}
        yield _line("metrics", row.estimate, **line)


def _overall(each: Overall) -> Iterator[tuple[str, Estimate]]:
    for metric in ("auroc", "auroc_rows", "auprc", "prevalence", "partial_auroc"):
        yield metric, getattr(each, metric)
    if each.calibration:
        for metric in CALIBRATION:
            yield metric, getattr(each.calibration, metric)


def _points(report: Report) -> Iterator[Line]:
    for point in report.points:
        where = {"finding": point.finding, "group": "all", "rule": point.rule}
        for metric in ("sensitivity", "specificity"):
            if (estimate := getattr(point, metric)) is not None:
                yield _line("operating points", estimate, metric=metric, **where)
        if point.test:
            for metric in ("miss_rate", "false_alarm_rate", "ppv", "npv", "flagged"):
                yield _line("operating points", getattr(point.test, metric), metric=metric, **where)
            for each in point.test.predictive:
                yield _line("operating points", each.ppv, metric=f"ppv at prevalence {each.prevalence:g}", **where)
                yield _line("operating points", each.npv, metric=f"npv at prevalence {each.prevalence:g}", **where)


def _gaps(report: Report) -> Iterator[Line]:
    for entry in report.gaps:
        line = {"finding": entry.finding, "attribute": entry.attribute, "rule": entry.rule}
        largest = entry.gaps.largest
        yield _line(
            "gaps",
            largest.estimate,
            metric=f"largest gap of {entry.metric}",
            group=f"{largest.first} - {largest.second}",
            p=entry.p,
            p_adjusted=entry.p_adjusted,
            verdict=largest.verdict.value,
            **line,
        )
        for gap in entry.gaps.to_rest:
            metric = f"gap of {entry.metric} to the rest"
            yield _line(
                "gaps", gap.estimate, metric=metric, group=gap.first, p=gap.p, verdict=gap.verdict.value, **line
            )
    for odds in report.odds:
        line = {"finding": odds.finding, "attribute": odds.attribute, "rule": odds.rule}
        yield _line("gaps", odds.gap.estimate, metric="equalised odds", p=odds.gap.p, **line)


def _line(section: str, estimate: Estimate, **more: object) -> Line:
    numbers = {
        name: getattr(estimate, name) for name in ("value", "low", "high", "n", "patients", "k", "reason", "method")
    }
    found = {"section": section, **numbers, "state": estimate.state.value, **more}
    return {name: value for name, value in found.items() if value is not None}
