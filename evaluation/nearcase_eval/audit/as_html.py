"""The report as one HTML file: no script, no network, the figures inline; the same report gives the same text."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from nearcase_eval.audit import figures, strips
from nearcase_eval.audit.report import GroupTable, Judged, Overall, Report
from nearcase_eval.audit.sections import sections_of
from nearcase_eval.audit.wording import METRICS, SHORT, VERDICTS, interval, number, several
from nearcase_eval.gaps import Verdict

FOLDER = Path(__file__).parent

SENTENCES_UP_TO = 2
"""Findings up to which each gap gets a sentence in the summary; above it a table of verdicts is quicker to read."""

SIGNS = {Verdict.PASS: "✓", Verdict.FAIL: "✕", Verdict.INCONCLUSIVE: "?", Verdict.NOT_JUDGED: "–"}

_PAGES = Environment(
    loader=FileSystemLoader(FOLDER), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)


def to_html(report: Report) -> str:
    """Returns the whole page."""
    style = (FOLDER / "report.css").read_text("utf-8")
    return _PAGES.get_template("report.html.j2").render(
        report=report,
        style=style,
        style_hash=base64.b64encode(hashlib.sha256(style.encode()).digest()).decode("ascii"),
        verdict=report.summary.verdict,
        words=VERDICTS,
        signs=SIGNS,
        head=[_headline(each) for each in report.overall],
        sentences=report.summary.judged if len(report.overall) <= SENTENCES_UP_TO else (),
        matrix=_matrix(report.summary.judged) if len(report.overall) > SENTENCES_UP_TO else None,
        people=[_people(report, name) for name in _attributes(report)],
        findings=[_finding(report, each) for each in report.overall],
        sections=sections_of(report),
        tested=several(report.run.rows, "image"),
        patients=several(report.run.patients, "patient") if report.flow.unit == "patient" else "patients not named",
    )


def _headline(each: Overall) -> dict[str, str]:
    found = each.auroc
    return {
        "finding": each.finding,
        "value": number(found.value) if found.value is not None else "not estimable",
        "interval": interval(found) if found.value is not None else found.reason,
        "counts": f"{each.positives:,} of {each.rows:,} images have it",
    }


def _matrix(judged: Sequence[Judged]) -> dict[str, Any]:
    """Verdicts with findings down and gaps across; of several operating points the worst is shown."""
    columns = list(dict.fromkeys((each.attribute, each.metric) for each in judged))
    cells: dict[tuple[str, str, str], Verdict] = {}
    for each in judged:
        key = (each.finding, each.attribute, each.metric)
        cells[key] = max(cells.get(key, each.verdict), each.verdict, key=_badness)
    rows = [
        (name, [cells.get((name, *column), Verdict.NOT_JUDGED) for column in columns])
        for name in dict.fromkeys(each.finding for each in judged)
    ]
    return {"columns": [f"{SHORT[metric]} by {attribute}" for attribute, metric in columns], "rows": rows}


def _badness(verdict: Verdict) -> int:
    return [Verdict.NOT_JUDGED, Verdict.PASS, Verdict.INCONCLUSIVE, Verdict.FAIL].index(verdict)


def _attributes(report: Report) -> list[str]:
    return list(dict.fromkeys(each.attribute for each in report.flow.demographics))


def _people(report: Report, attribute: str) -> dict[str, Any]:
    rows = [each for each in report.flow.demographics if each.attribute == attribute]
    has_target = any(each.target_share is not None for each in rows)
    return {"attribute": attribute, "bars": strips.bars(rows), "has_target": has_target}


def _finding(report: Report, overall: Overall) -> dict[str, Any]:
    points = [each for each in report.points if each.finding == overall.finding]
    gaps = [each for each in report.gaps if each.finding == overall.finding]
    drawn = [
        ("ROC", figures.roc(overall, points), _under_roc(report, overall)),
        ("Precision and recall", figures.precision_recall(overall), "Dashed: the prevalence, which a coin reaches."),
        ("Calibration", figures.reliability(overall), "Dashed: perfect. Bars: 95 % intervals of tenths of the images."),
        (
            "Decision curve",
            figures.decision_curve(overall),
            "Solid: the score. Dotted: calling all. Dashed: calling none.",
        ),
    ]
    to_rest = [strips.gaps_to_rest([each for each in gaps if not each.exploratory], metric) for metric in ("auroc",)]
    return {
        "name": overall.finding,
        "summary": f"{overall.positives:,} of {overall.rows:,} images, {overall.patients:,} patients",
        "figures": [(title, svg, note) for title, svg, note in drawn if svg is not None],
        "reason": overall.calibration_reason,
        "forests": list(_forests(report, overall)),
        "gaps": [chart for chart in (strips.largest_gaps(gaps), *to_rest) if chart is not None],
    }


def _under_roc(report: Report, overall: Overall) -> str:
    shaded = "Shaded: 95 % interval at each threshold. Dashed: chance."
    has_point = any(each.finding == overall.finding and each.test for each in report.points)
    return f"{shaded} Diamonds: operating points with their intervals." if has_point else shaded


def _forests(report: Report, overall: Overall) -> Iterator[tuple[str, list[strips.Chart]]]:
    """The first operating point only, and crossed groups by AUROC only: all of it is in section 7."""
    first: dict[str, GroupTable] = {}
    for table in report.groups:
        if table.finding == overall.finding:
            first.setdefault(table.attribute, table)
    explored = {each.attribute for each in report.gaps if each.exploratory}
    plain = [table for name, table in first.items() if name not in explored]
    crossed = [table for name, table in first.items() if name in explored]
    at = next((each.test for each in report.points if each.finding == overall.finding and each.test), None)
    for title, tables, metric, whole in (
        ("", plain, "auroc", overall.auroc),
        ("", plain, "miss_rate", at.miss_rate if at else None),
        ("", plain, "false_alarm_rate", at.false_alarm_rate if at else None),
        (", crossed (explored)", crossed, "auroc", overall.auroc),
    ):
        if shown := list(strips.forests(tables, metric, whole)):
            yield f"{METRICS[metric][0].upper()}{METRICS[metric][1:]}, by group{title}", shown
