"""Rows of a table with a mark and an interval beside the words: forest plots, gap charts, demographics."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nearcase_eval.audit.report import Demographic, GroupGaps, GroupTable
from nearcase_eval.audit.wording import METRICS, SHORT, number, p_value, percent, several, share, value
from nearcase_eval.estimate import Estimate, State
from nearcase_eval.gaps import Verdict
from nearcase_eval.subgroups import Subgroup


@dataclass(frozen=True, slots=True)
class Strip:
    """One row; places are percent of the width."""

    name: str
    counts: str  # under the name
    words: str
    note: str = ""  # under the words
    at: float | None = None
    low: float | None = None
    high: float | None = None
    sign: str = "dot"  # dot, or the verdict whose shape marks it
    verdict: Verdict | None = None
    band: tuple[float, float] | None = None  # the tolerance, from and to


@dataclass(frozen=True, slots=True)
class Chart:
    """Strips on one scale."""

    title: str
    measure: str
    ticks: tuple[tuple[float, str], ...]  # place and label
    strips: tuple[Strip, ...]
    reference: float | None = None  # place of a line: the value over all
    legend: str = ""


@dataclass(frozen=True, slots=True)
class Bar:
    """A group's share of the patients, and of the population that the model is meant for."""

    name: str
    counts: str
    share: float | None
    words: str
    target: float | None


def forests(tables: Sequence[GroupTable], metric: str, whole: Estimate | None) -> tuple[Chart, ...]:
    """Returns one metric in all groups of each table, on one scale; tables in which no group has it are left out."""
    found = [(table, [each for each in _shown(table) if getattr(each, metric) is not None]) for table in tables]
    estimates = [getattr(each, metric) for _, groups in found for each in groups]
    numbers = [end for each in estimates for end in _ends(each)]
    if not numbers:
        return ()
    scale = _Scale([*numbers, *([whole.value] if whole and whole.value is not None else [])], most=1.0)
    reference = scale.place(whole.value) if whole and whole.value is not None else None
    return tuple(_forest(scale, table, metric, groups, reference) for table, groups in found if groups)


def _shown(table: GroupTable) -> list[Subgroup]:
    return [each for each in table.groups if each.n or each.state is State.SUPPRESSED]


def _forest(
    scale: _Scale, table: GroupTable, metric: str, groups: Sequence[Subgroup], reference: float | None
) -> Chart:
    said: Callable[[Estimate], str] = value if metric == "auroc" else share
    strips = tuple(
        _strip(scale, each.name, _counts(each.positives, each.n, each.patients), found, said(found))
        for each in groups
        if (found := getattr(each, metric)) is not None
    )
    at = f" at {table.rule}" if metric != "auroc" and table.rule else ""
    return Chart(f"By {table.attribute}{at}", METRICS[metric], scale.ticks(), strips, reference)


def largest_gaps(entries: Sequence[GroupGaps]) -> Chart | None:
    """Returns the largest gaps of one finding, each with its own tolerance."""
    known = [each for each in entries if each.gaps.largest.estimate.value is not None]
    if not known:
        return None
    numbers = [each.gaps.largest.estimate.high or each.gaps.largest.estimate.value or 0.0 for each in known]
    scale = _Scale([0.0, *numbers, *(each.gaps.largest.tolerance or 0.0 for each in known)], most=1.0)
    strips = tuple(_gap_strip(scale, each) for each in known)
    return Chart("Largest gap between groups", "gap", scale.ticks(), strips, legend=BAND)


def gaps_to_rest(entries: Sequence[GroupGaps], metric: str) -> Chart | None:
    """Returns each group's difference to the rest; right of 0 is a higher value."""
    rows = [(each, gap) for each in entries if each.metric == metric for gap in each.gaps.to_rest]
    known = [(each, gap) for each, gap in rows if gap.estimate.value is not None]
    numbers = [end for _, gap in known for end in _ends(gap.estimate)]
    if not numbers:
        return None
    reach = max(abs(each) for each in [*numbers, *(gap.tolerance or 0.0 for _, gap in known)])
    scale = _Scale([-reach, reach])
    strips = tuple(
        dataclasses.replace(
            _strip(scale, f"{each.attribute} {gap.first}", "", gap.estimate, value(gap.estimate)),
            band=_band(scale, -(gap.tolerance or 0.0), gap.tolerance),
        )
        for each, gap in known
    )
    title = f"{METRICS[metric]}: each group minus all others"
    return Chart(title, SHORT[metric], scale.ticks(), strips, scale.place(0.0), BAND)


BAND = "Shaded: within the tolerance."


def _ends(estimate: Estimate) -> list[float]:
    return [end for end in (estimate.low, estimate.high, estimate.value) if end is not None]


def _band(scale: _Scale, low: float, tolerance: float | None) -> tuple[float, float] | None:
    return None if tolerance is None else (scale.place(low), scale.place(tolerance))


def bars(rows: Sequence[Demographic]) -> tuple[Bar, ...]:
    """Returns the groups of one attribute."""
    return tuple(
        Bar(
            each.group,
            "counts are hidden"
            if each.patients is None or each.rows is None
            else f"{several(each.patients, 'patient')}, {several(each.rows, 'image')}",
            None if each.share is None else 100.0 * each.share,
            percent(each.share),
            None if each.target_share is None else 100.0 * each.target_share,
        )
        for each in rows
        if each.patients != 0
    )


class _Scale:
    """A range with round ends and at most five ticks, as places from 0 to 100 percent."""

    def __init__(self, numbers: Sequence[float], most: float = math.inf) -> None:
        low, high = min(numbers), max(numbers)
        span = max(high - low, 1e-3)
        size = 10.0 ** math.floor(math.log10(span))
        self.step = next(size * step for step in (0.25, 0.5, 1.0, 2.0, 2.5, 5.0) if span / (size * step) <= 3.0)
        self.low = math.floor(low / self.step + 1e-9) * self.step
        self.high = max(min(most, math.ceil(high / self.step - 1e-9) * self.step), self.low + self.step)

    def place(self, found: float) -> float:
        return min(100.0, max(0.0, 100.0 * (found - self.low) / (self.high - self.low)))

    def ticks(self) -> tuple[tuple[float, str], ...]:
        count = math.floor((self.high - self.low) / self.step + 1e-6)
        found = [self.low + step * self.step for step in range(count + 1)]
        digits = next(
            digits for digits in range(1, 9) if abs(self.step * 10**digits - round(self.step * 10**digits)) < 1e-6
        )
        return tuple((self.place(each), number(each, digits)) for each in found)


def _strip(scale: _Scale, name: str, counts: str, estimate: Estimate, words: str) -> Strip:
    if estimate.value is None:
        return Strip(name, counts, words, estimate.reason)
    note = estimate.reason if estimate.state is State.LOW_PRECISION else ""
    low = None if estimate.low is None else scale.place(estimate.low)
    high = None if estimate.high is None else scale.place(estimate.high)
    return Strip(name, counts, words, note, scale.place(estimate.value), low, high)


def _gap_strip(scale: _Scale, entry: GroupGaps) -> Strip:
    gap = entry.gaps.largest
    name = f"{SHORT[entry.metric]} by {entry.attribute}" + (f", {entry.rule}" if entry.rule else "")
    strip = _strip(scale, name, f"{gap.first} − {gap.second}", gap.estimate, value(gap.estimate))
    note = f"p {p_value(entry.p)}, adjusted {p_value(entry.p_adjusted)}" + (", explored" if entry.exploratory else "")
    return Strip(
        name,
        strip.counts,
        strip.words,
        note,
        strip.at,
        strip.low,
        strip.high,
        gap.verdict.value,
        gap.verdict,
        _band(scale, 0.0, gap.tolerance),
    )


def _counts(positives: int, n: int, patients: int) -> str:
    return f"{positives:,}/{n:,} positive, {several(patients, 'patient')}" if n else "counts are hidden"
