"""The page of a fit: what each point does to held-out patients, what was refused, and where it does not hold."""

from __future__ import annotations

from pathlib import Path

from jinja2 import ChoiceLoader, Environment, FileSystemLoader, StrictUndefined

from nearcase import report
from nearcase.decide.fitted import Fitted
from nearcase.decide.rate import decimal, npv, ppv
from nearcase.report.decision_view import Stop, area, percent
from nearcase.report.roc import cross, steps
from nearcase.report.style import style_of
from nearcase.types import RocPoint

_PAGES = Environment(
    loader=ChoiceLoader([FileSystemLoader(Path(__file__).parent), FileSystemLoader(Path(report.__path__[0]))]),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
GROUP_COLUMNS = ("group", "patients with the finding, without", "point", "sensitivity", "specificity", "validated")
POINT_COLUMNS = ("point", "positive from", "sensitivity", "specificity", "promise")
CALLED_COLUMNS = ("point", "sensitivity", "patients with the finding", "specificity", "patients without")
PREDICTIVE_COLUMNS = ("point", "PPV", "NPV")


def render_fit(fitted: Fitted, *, statement: str) -> str:
    """Returns the page as one file without script; the same fit gives the same text.

    Args:
        fitted: What to show.
        statement: What the encoder is, in its card's words.
    """
    points = sorted((point.shown for point in fitted.points), key=lambda point: point.threshold)
    curve = [RocPoint(each.threshold, each.sensitivity.value, 1.0 - each.specificity.value) for each in fitted.curve]
    return _PAGES.get_template("fit.html.j2").render(
        fitted=fitted,
        statement=statement,
        style=style_of("evidence.css", "decision.css"),
        columns=POINT_COLUMNS,
        rows=point_rows(fitted),
        called_columns=CALLED_COLUMNS,
        called_rows=called_rows(fitted),
        predictive_columns=PREDICTIVE_COLUMNS,
        predictive_rows=predictive_rows(fitted),
        prevalence=decimal(fitted.prevalence) if fitted.prevalence else "",
        called=called(fitted),
        group_columns=GROUP_COLUMNS,
        group_rows=group_rows(fitted),
        curve=steps(curve) if curve else "",
        area=area(fitted.auroc) if fitted.auroc else "",
        stops=[Stop(point.name, "", (), cross(point), False) for point in points],
    )


def called(fitted: Fitted) -> str:
    """Returns a sentence on how many held-out images get a call, and what the figures count."""
    counted = "Held-out figures count every image, also those on which this finding would abstain"
    if fitted.called is None:
        return f"{counted}."
    share = percent(fitted.called.interval)
    return f"{counted}: at its default point a call would be made on {share}, each patient weighing once."


def called_rows(fitted: Fitted) -> list[tuple[str, ...]]:
    """Returns for each operating point the held-out rates among images with a call there, the most sensitive first."""
    points = sorted((point.shown for point in fitted.points), key=lambda point: point.threshold)
    return [
        (
            point.name,
            percent(point.called_sensitivity) if point.called_sensitivity else "not known",
            str(point.called_positive_patients),
            percent(point.called_specificity) if point.called_specificity else "not known",
            str(point.called_negative_patients),
        )
        for point in points
    ]


def point_rows(fitted: Fitted) -> list[tuple[str, ...]]:
    """Returns one row of text for each operating point, the most sensitive first."""
    points = sorted((point.shown for point in fitted.points), key=lambda point: point.threshold)
    return [
        (
            point.name,
            decimal(point.threshold),
            percent(point.sensitivity),
            percent(point.specificity),
            point.guarantee or f"none ({point.method})",
        )
        for point in points
    ]


def predictive_rows(fitted: Fitted) -> list[tuple[str, ...]]:
    """Returns PPV and NPV of each operating point at the held-out prevalence, the most sensitive first."""
    if fitted.prevalence is None:
        return []
    rows: list[tuple[str, ...]] = []
    for point in sorted(fitted.points, key=lambda point: point.threshold):
        found = (of(point.sensitivity, point.specificity, fitted.prevalence) for of in (ppv, npv))
        rows.append((point.name, *(percent(each) if each else "none are called so" for each in found)))
    return rows


def group_rows(fitted: Fitted) -> list[tuple[str, ...]]:
    """Returns one row of text for each group at each point, the most sensitive first; one for a group that failed."""
    points = sorted(fitted.points, key=lambda point: point.threshold)
    rows: list[tuple[str, ...]] = []
    for group in fitted.groups:
        name = f"{group.attribute} {group.name}"
        counts = f"{len(group.positives)}, {len(group.negatives)}" if group.is_validated else f"{group.patients} in all"
        if not group.is_validated:
            rows.append((name, counts, "every", "", "", f"no: {group.reason}"))
            continue
        for point in points:
            rates = (percent(each.interval) for each in group.rates(point.threshold))
            why = group.why_not([point], fitted.gap, fitted.curve)
            rows.append((name, counts, point.name, *rates, f"no: {why}" if why else "yes"))
    return rows
