"""nearcase library: what the library holds; the commands that change it are in modules beside this one."""

from __future__ import annotations

import dataclasses
import itertools

import click
from rich.table import Table

from nearcase.cli.cases import case_json
from nearcase.cli.library_correct import flag, label, merge
from nearcase.cli.library_erase import erase, erasures
from nearcase.cli.library_export import export_library
from nearcase.cli.library_import import import_library
from nearcase.cli.library_recall import recall_check
from nearcase.cli.library_reembed import reembed
from nearcase.cli.options import connected, console, json_option, print_json, server_option
from nearcase.report.text import COLUMNS, case_cells, encoder_line


@click.group()
def library() -> None:
    """What the library of prior cases holds: reading, correcting, erasing, export and import."""


@library.command()
@json_option
@server_option
def info(as_json: bool, server: str) -> None:
    """Count cases and patients, by modality, body part, sex, manufacturer, source and label."""
    with connected(server) as client:
        statistics = client.statistics()
    if as_json:
        print_json(dataclasses.asdict(statistics))
        return
    out = console()
    size_mib = statistics.size_bytes / 2**20
    out.print(f"{statistics.case_count} cases of {statistics.patient_count} patients, {size_mib:.1f} MiB on disk")
    for field, counts in statistics.field_counts.items():
        ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        if ordered:
            out.print(f"{field}: " + ", ".join(f"{value} {count}" for value, count in ordered), markup=False)
    out.print(encoder_line(statistics.encoder), markup=False)


@library.command("list")
@click.option("--filter", "where", default="", help='Which cases: "modality = CT and age >= 40".')
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="Most cases to print.")
@json_option
@server_option
def list_cases(where: str, limit: int, as_json: bool, server: str) -> None:
    """List cases in the order of their ids."""
    with connected(server) as client:
        cases = list(itertools.islice(client.cases(where, page_size=min(limit, 500)), limit))
    if as_json:
        print_json([case_json(case) for case in cases])
        return
    table = Table("case id", *COLUMNS[2:], box=None, pad_edge=False)
    for case in cases:
        table.add_row(case.case_id, *case_cells(case.facts, case.labels, case.source))
    console().print(table)


@library.command()
@click.argument("case_id")
@server_option
def show(case_id: str, server: str) -> None:
    """Print one case as JSON."""
    with connected(server) as client:
        print_json(case_json(client.case(case_id)))


for command in (label, flag, merge, erase, erasures, export_library, import_library, reembed, recall_check):
    library.add_command(command)
