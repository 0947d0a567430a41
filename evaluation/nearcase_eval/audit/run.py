"""From a plan and the rows to the report."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import platform
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TypeVar

import numpy as np

from nearcase.processors import processor_count
from nearcase_eval.audit.as_json import plain
from nearcase_eval.audit.attributes import Attribute, attributes_of, columns_alone
from nearcase_eval.audit.card import Card
from nearcase_eval.audit.disparity import adjusted, gaps_of, tables_of
from nearcase_eval.audit.flow import flow_of, overlaps_of
from nearcase_eval.audit.frame import Frame, Outcome
from nearcase_eval.audit.hiding import hide_small
from nearcase_eval.audit.limits import limits_of
from nearcase_eval.audit.maps import maps_of
from nearcase_eval.audit.metrics import metrics_of
from nearcase_eval.audit.overall import averages_of, overall_of
from nearcase_eval.audit.plan import Plan
from nearcase_eval.audit.points import points_of
from nearcase_eval.audit.report import (
    FORMAT,
    Confounders,
    GroupGaps,
    GroupTable,
    Input,
    MetricRow,
    Named,
    Odds,
    Overall,
    Point,
    Report,
    Run,
    Statement,
    Summary,
    System,
    Versus,
)
from nearcase_eval.audit.roles import Roles
from nearcase_eval.audit.summary import summary_of
from nearcase_eval.audit.versus import versus_of
from nearcase_eval.confounders import baselines
from nearcase_eval.gaps import Verdict
from nearcase_eval.sample import present

TOOL = "nearcase-audit"
LIBRARIES = ("numpy", "scipy", "numba", "fairlearn", "scikit-learn")
"""Whose versions can change a number."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Parts:
    """What is computed for one finding."""

    overall: Overall
    points: tuple[Point, ...]
    groups: tuple[GroupTable, ...]
    gaps: tuple[GroupGaps, ...]
    odds: tuple[Odds, ...]
    confounders: Confounders | None
    metrics: tuple[MetricRow, ...]
    versus: tuple[Versus, ...]


def audit(
    frame: Frame,
    roles: Roles,
    plan: Plan,
    *,
    card: Card | None = None,
    inputs: Sequence[Input] = (),
    title: str = "Fairness audit",
    date: str | None = None,
    progress: Callable[[str], None] = lambda finding: None,
) -> Report:
    """Returns the report; the same frame, plan and card give the same report.

    Args:
        frame: The rows.
        roles: Which column is what.
        plan: Every choice that changes a number.
        card: What the developer says.
        inputs: The files that were read.
        title: Heading of the pages.
        date: As it is to be printed; the clock is not read.
        progress: Called with each finding that is done.

    Raises:
        InvalidInput: An attribute, confounder or metric does not exist, or an attribute has too many values.
    """
    said = card or Card()
    attributes = attributes_of(frame, roles, plan)

    def one(outcome: Outcome) -> Parts:
        found = _parts(frame, roles, outcome, attributes, plan)
        progress(outcome.finding.name)
        return found

    about = (_run(frame, roles, plan, inputs, date), _system(said, frame))
    report = _joined(_each(one, frame.outcomes), title, *about, frame, attributes, plan, said)
    return _finished(report, frame, attributes, plan)


def _joined(
    parts: Sequence[Parts],
    title: str,
    run: Run,
    system: System,
    frame: Frame,
    attributes: Sequence[Attribute],
    plan: Plan,
    card: Card,
) -> Report:
    """The sections of all findings, one behind the other; summary, limits and maps come last."""
    stated = ((each.name, getattr(card.use, each.name)) for each in dataclasses.fields(card.use))
    return Report(
        FORMAT,
        title,
        Summary(Verdict.INCONCLUSIVE, "", (), ()),
        run,
        system,
        tuple(Statement(name, None if value is None else str(value)) for name, value in stated),
        flow_of(frame, attributes, card.population),
        tuple(each.overall for each in parts),
        averages_of(frame, plan),
        tuple(point for each in parts for point in each.points),
        tuple(table for each in parts for table in each.groups),
        adjusted([gap for each in parts for gap in each.gaps], plan),
        tuple(odds for each in parts for odds in each.odds),
        tuple(each.confounders for each in parts if each.confounders),
        tuple(row for each in parts for row in each.metrics),
        tuple(entry for each in parts for entry in each.versus),
        (),
        (),
    )


def _finished(report: Report, frame: Frame, attributes: Sequence[Attribute], plan: Plan) -> Report:
    """Hides what must be hidden, then says in words only what is left to see."""
    shown = hide_small(report, attributes, plan.suppress) if plan.suppress else report
    summary = summary_of(shown.flow, shown.overall, shown.points, shown.gaps, shown.run.patients)
    shown = dataclasses.replace(shown, summary=summary, limits=limits_of(shown, frame, plan))
    return dataclasses.replace(shown, maps=maps_of(shown))


def _each(act: Callable[[Outcome], T], outcomes: Sequence[Outcome]) -> list[T]:
    """Findings are independent, and NumPy lets threads run beside each other; the order stays."""
    with ThreadPoolExecutor(min(len(outcomes), processor_count())) as threads:
        return list(threads.map(act, outcomes))


def _parts(frame: Frame, roles: Roles, outcome: Outcome, attributes: Sequence[Attribute], plan: Plan) -> Parts:
    points = points_of(frame, outcome, plan)
    found = list(gaps_of(frame, outcome, attributes, points, plan))
    return Parts(
        overall_of(frame, outcome, plan),
        points,
        tuple(tables_of(frame, outcome, attributes, points, plan)),
        tuple(each for each in found if isinstance(each, GroupGaps)),
        tuple(each for each in found if isinstance(each, Odds)),
        _confounders(frame, roles, outcome, plan),
        tuple(metrics_of(frame, outcome, attributes, points, plan)),
        tuple(versus_of(frame, outcome, attributes, plan)),
    )


def _confounders(frame: Frame, roles: Roles, outcome: Outcome, plan: Plan) -> Confounders | None:
    rows = frame.usable(outcome, frame.test)
    data = frame.sample(outcome, rows)
    if not plan.confounders or not 0 < data.positives < data.n:
        return None
    columns = columns_alone(plan.confounders, frame, roles)
    chosen = {name: np.asarray(values)[rows[frame.test]] for name, values in columns.items()}
    found = baselines(data.truth, data.score, chosen, patient=data.patient, seed=plan.seed, level=plan.level)
    return Confounders(outcome.finding.name, found)


def _run(frame: Frame, roles: Roles, plan: Plan, inputs: Sequence[Input], date: str | None) -> Run:
    options = tuple(Named(name, _words(value)) for name, value in plain(plan).items())
    columns = [
        Named(role, column) for role in ("patient", "sex", "age", "split", "image") if (column := getattr(roles, role))
    ]
    columns += [Named(f"label of {each.name}", each.label) for each in roles.findings]
    columns += [Named(f"score of {each.name}", each.score) for each in roles.findings]
    text = json.dumps([[each.name, each.value] for each in (*options, *columns)], ensure_ascii=False)
    return Run(
        TOOL,
        _version("nearcase") or "unknown",
        options,
        hashlib.sha256(text.encode()).hexdigest(),
        tuple(inputs),
        tuple(columns),
        plan.seed,
        plan.replicates,
        date,
        (
            Named("python", platform.python_version()),
            *(Named(name, found) for name in LIBRARIES if (found := _version(name))),
        ),
        int(frame.test.sum()),
        present(frame.patient[frame.test], frame.patients),
    )


def _words(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _system(card: Card, frame: Frame) -> System:
    overlaps = overlaps_of(frame)
    shared = sum(each.patients for each in overlaps)
    if not frame.has_patients:
        check = "Not checked: no column names the patients."
    elif not overlaps:
        check = "Not checked: the table has no rows but the test rows."
    elif shared:
        check = "Failed: patients of the test set are in another part too."
    else:
        check = "Passed: no patient of the test set is in another part of the table."
    model = card.model
    return System(
        model.name,
        model.version,
        model.weights_sha256,
        model.index_version,
        model.index_size,
        model.k,
        model.distance,
        model.score,
        tuple(each.finding.name for each in frame.outcomes),
        overlaps,
        check,
    )
