"""A report that may leave the house: small groups hidden, and whatever would reveal them."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence

from nearcase_eval.audit.attributes import Attribute
from nearcase_eval.audit.report import Demographic, Flow, GroupGaps, GroupTable, MetricRow, Odds, Report, Versus
from nearcase_eval.estimate import Estimate, State, suppressed
from nearcase_eval.gaps import Excluded, Gap, Gaps
from nearcase_eval.subgroups import RATES, Subgroup, suppress
from nearcase_eval.suppression import crossing_tables, hidden

Secrets = Mapping[tuple[str, str], frozenset[str]]
"""(finding, attribute) to the groups that are hidden."""


def hide_small(report: Report, attributes: Sequence[Attribute], least: int) -> Report:
    """Returns the report without counts from 1 to least - 1 of persons in groups.

    Hidden are: groups with such a count of patients, of patients with or without the finding; a second group where a
    total would reveal the first; rates whose numerator or its complement is such a count; and every gap, comparison
    and metric that speaks of a hidden group. Counts over all test rows stay.
    """
    sides = {each.name: each.sides for each in attributes}
    groups = tuple(_table(table, sides[table.attribute], least) for table in report.groups)
    secrets = _secrets(groups)
    return dataclasses.replace(
        report,
        groups=groups,
        gaps=tuple(_gaps(each, secrets) for each in report.gaps),
        odds=tuple(_odds(each, secrets) for each in report.odds),
        versus=tuple(_versus(each, secrets) for each in report.versus),
        metrics=tuple(_metric(each, secrets) for each in report.metrics),
        flow=_flow(report.flow, least),
    )


def _table(table: GroupTable, sides: tuple[int, int] | None, least: int) -> GroupTable:
    everyone = list(range(len(table.groups)))
    tables = None if sides is None else [*crossing_tables(*sides), everyone]
    shown = tuple(_rates(each, least) for each in suppress(table.groups, least, tables=tables))
    secret = {each.name for each in shown if each.state is State.SUPPRESSED}
    kept = tuple(each for each in table.calibration if each.group not in secret)
    return dataclasses.replace(table, groups=shown, calibration=kept)


def _rates(group: Subgroup, least: int) -> Subgroup:
    def small(estimate: Estimate | None) -> bool:
        if estimate is None or estimate.k is None:
            return False
        return 0 < estimate.k < least or 0 < estimate.n - estimate.k < least

    found = {name: getattr(group, name) for name in RATES}
    blank = {name: suppressed(each) for name, each in found.items() if small(each)}
    # The flagged share and PPV together give the counts back that sensitivity or specificity hide.
    if blank:
        blank |= {name: suppressed(found[name]) for name in ("ppv", "npv", "flagged") if found[name] is not None}
    return dataclasses.replace(group, **blank)  # type: ignore[arg-type]


def _secrets(groups: Sequence[GroupTable]) -> dict[tuple[str, str], frozenset[str]]:
    found: dict[tuple[str, str], frozenset[str]] = {}
    for table in groups:
        names = frozenset(each.name for each in table.groups if each.state is State.SUPPRESSED)
        key = (table.finding, table.attribute)
        found[key] = found.get(key, frozenset()) | names
    return found


def _gaps(entry: GroupGaps, secrets: Secrets) -> GroupGaps:
    names = secrets.get((entry.finding, entry.attribute), frozenset())
    found = entry.gaps
    gaps = Gaps(
        found.metric,
        found.attribute,
        None if found.worst in names else found.worst,
        _gap(found.largest, names),
        tuple(_gap(each, names) for each in found.to_rest),
        found.homogeneity,
        found.df,
        found.homogeneity_p,
        tuple(Excluded(each.name, "hidden" if each.name in names else each.reason) for each in found.excluded),
    )
    return dataclasses.replace(entry, gaps=gaps)


def _gap(gap: Gap, names: frozenset[str]) -> Gap:
    """Two groups are each other's rest, so a difference that names a hidden group is hidden whole."""
    if not {gap.first, gap.second} & names:
        return gap
    return dataclasses.replace(gap, estimate=suppressed(gap.estimate), p=None, expected_by_chance=None)


def _odds(odds: Odds, secrets: Secrets) -> Odds:
    names = secrets.get((odds.finding, odds.attribute), frozenset())
    return dataclasses.replace(odds, gap=_gap(odds.gap, names))


def _versus(entry: Versus, secrets: Secrets) -> Versus:
    if entry.group not in secrets.get((entry.finding, entry.attribute), frozenset()):
        return entry
    difference = dataclasses.replace(entry.difference, estimate=suppressed(entry.difference.estimate), z=None, p=None)
    return dataclasses.replace(
        entry, first=suppressed(entry.first), second=suppressed(entry.second), difference=difference, noninferior=None
    )


def _metric(row: MetricRow, secrets: Secrets) -> MetricRow:
    secret = row.group in secrets.get((row.finding, row.attribute), frozenset())
    return dataclasses.replace(row, estimate=suppressed(row.estimate)) if secret else row


def _flow(flow: Flow, least: int) -> Flow:
    result: list[Demographic] = []
    for attribute in dict.fromkeys(each.attribute for each in flow.demographics):
        rows = [each for each in flow.demographics if each.attribute == attribute]
        mask = hidden([[each.patients or 0] for each in rows], least)
        blank = {"rows": None, "patients": None, "share": None}
        pairs = zip(rows, mask, strict=True)
        result += [dataclasses.replace(each, **blank) if secret else each for each, secret in pairs]  # type: ignore[arg-type]
    missing = tuple(dataclasses.replace(each, rows=None) if _small(each.rows, least) else each for each in flow.missing)
    return dataclasses.replace(
        flow,
        demographics=tuple(result),
        missing=missing,
        notes=tuple(_vague(note, least) for note in flow.notes),
    )


def _small(count: int | None, least: int) -> bool:
    return count is not None and 0 < count < least


def _vague(note: str, least: int) -> str:
    """A sentence that starts with a small count says "fewer than" instead."""
    found = re.match(r"(\d+) ", note)
    if found is None or not _small(int(found[1]), least):
        return note
    return f"fewer than {least} {note[found.end() :]}"
