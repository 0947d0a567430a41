"""The report in words and tables, the same for a terminal and for a page."""

from __future__ import annotations

from collections.abc import Iterator

from nearcase.reembed.report import Report
from nearcase.report.page import Table
from nearcase.types import Interval


def sentences(report: Report, digest: str) -> tuple[str, ...]:
    """Returns what to know first."""
    built = report.built
    lost = len(built.missing) + len(built.refused)
    told = [
        f"New encoder {report.new.encoder_identity}; the library is of {report.old.encoder_identity}.",
        f"{report.new.case_count} of {built.case_count} cases have a new embedding; {built.embedded_count} were "
        f"embedded now. No file was found for {len(built.missing)}, and {len(built.refused)} files were refused.",
    ]
    if lost:
        told.append("Cases without a new embedding would be in the old library alone, which is kept.")
    if report.changed_meanwhile:
        told.append("The library changed meanwhile: build again before you accept.")
    told.append("Findings that were fitted with the old encoder abstain with the new one until they are fitted again.")
    told.append(f"Digest of this report: {digest}")
    return tuple(told)


def tables(report: Report) -> tuple[Table, ...]:
    """Returns the figures."""
    return (_search(report), _votes(report), _areas(report))


def _search(report: Report) -> Table:
    overlap, recall = report.comparison.overlap, report.recall
    rows = []
    if overlap is not None:
        n = f"{overlap.query_count} queries of {overlap.patient_count} patients"
        rows.append((f"overlap@{overlap.k} of old and new neighbours", _interval(overlap.mean), n))
    how = "every search is exact" if recall.is_exact else "against exact search"
    rows.append((f"recall@{recall.k} of the new index, {how}", f"{recall.value:.3f}", f"{recall.query_count} queries"))
    note = "Own patient, study, series and copies are never neighbours. Intervals are 95 %, over patients."
    return Table("What is found", ("figure", "value", "n"), tuple(rows), note)


def _votes(report: Report) -> Table:
    columns = ("label", "another value is most likely", "own value, old", "own value, new", "queries", "patients")
    rows = tuple(
        (
            change.name,
            _share(change.changed_count, change.query_count),
            _share(change.old_correct_count, change.query_count),
            _share(change.new_correct_count, change.query_count),
            str(change.query_count),
            str(change.patient_count),
        )
        for change in report.comparison.labels
    )
    note = "Each query is a case whose patient is left out: the value with most of the votes of its 10 nearest cases."
    return Table("What the neighbours say", columns, rows, note if rows else "No label has enough labelled cases.")


def _areas(report: Report) -> Table:
    columns = ("label = value", "AUROC old", "AUROC new", "new minus old", "with the value", "others")
    return Table("How well votes tell each value", columns, tuple(_area_rows(report)), "95 % intervals over patients.")


def _area_rows(report: Report) -> Iterator[tuple[str, ...]]:
    for change in report.comparison.labels:
        for area in change.areas:
            intervals = (_interval(each) for each in (area.old, area.new, area.difference))
            counts = (str(area.positive_count), str(area.negative_count))
            yield (f"{change.name} = {area.value}", *intervals, *counts)


def _interval(interval: Interval) -> str:
    return f"{interval.value:.3f} ({interval.low:.3f} to {interval.high:.3f})"


def _share(count: int, of: int) -> str:
    return f"{count} of {of} ({count / of:.1%})"
