"""nearcase library recall-check: do searches find what exact ones find."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime

import click
from rich.table import Table

from nearcase.cli.exits import FAULT
from nearcase.cli.options import connected, console, json_option, print_json, progress_console, server_option
from nearcase.types import RecallReport

LEAST = 0.95
"""As the server's readiness warning, see docs/library.md."""


@click.command("recall-check")
@click.option("--samples", type=click.IntRange(10, 1000), default=50, show_default=True, help="Cases to search with.")
@click.option("-k", "--k", type=click.IntRange(1, 100), default=10, show_default=True, help="Neighbours to compare.")
@json_option
@server_option
def recall_check(samples: int, k: int, as_json: bool, server: str) -> None:
    """Search with stored cases, without a filter and under several, and compare with exact searches.

    Recall is the share of the true neighbours that a search finds. Exit code 1 where it is below 0.95.
    """
    with connected(server) as client, progress_console().status("searching with stored cases"):
        report = client.library.check_recall(samples=samples, k=k)
    if as_json:
        print_json(dataclasses.asdict(report) | {"worst": report.worst, "ok": report.worst >= LEAST})
    else:
        show(report)
    if report.worst < LEAST:
        raise SystemExit(FAULT)


def show(report: RecallReport) -> None:
    """Prints the table, and what it means in one line."""
    table = Table("filter", "candidates", f"recall@{report.k}", "searches", box=None, pad_edge=False)
    for row in report.rows:
        recall = "exact" if not row.sample_count else f"{row.recall:.3f}"
        where = row.where.replace("[", "\\[") or "none"
        table.add_row(where, str(row.candidate_count), recall, str(row.sample_count))
    out = console()
    out.print(table)
    out.print(conclusion(report), markup=False)


def conclusion(report: RecallReport) -> str:
    """Returns one line: what was found and when, for people."""
    if report.is_exact:
        return "exact by construction: every search scores every candidate, so recall is 1"
    when = datetime.fromtimestamp(report.checked_at_s, UTC).strftime("%Y-%m-%d %H:%M UTC")
    verdict = "as it should be" if report.worst >= LEAST else f"LOW, expected {LEAST}: a part of the index is unsound"
    return f"least recall@{report.k} {report.worst:.3f} at {when}: {verdict}"
