"""nearcase library: what the library holds, and erasing from it."""

from __future__ import annotations

import dataclasses
import itertools

import click
from rich.table import Table

from nearcase.cli.options import connected, console, json_option, print_json, server_option
from nearcase.errors import InvalidInput
from nearcase.report.text import COLUMNS, case_cells, encoder_line
from nearcase.types import Case


@click.group()
def library() -> None:
    """What the library of prior cases holds, and erasing from it."""


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
        print_json([to_json(case) for case in cases])
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
        print_json(to_json(client.case(case_id)))


@library.command()
@click.option("--case", "case_id", default="", help="One image by its case id.")
@click.option("--instance", "instance_uid", default="", help="One image by its SOP Instance UID.")
@click.option("--series", "series_uid", default="", help="A series by its UID.")
@click.option("--study", "study_uid", default="", help="A study by its UID.")
@click.option("--patient", "patient_id", default="", help="All of a patient, by Patient ID.")
@click.option("--issuer", "patient_id_issuer", default="", help="Issuer of the Patient ID; default none stated.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@server_option
def erase(
    case_id: str,
    instance_uid: str,
    series_uid: str,
    study_uid: str,
    patient_id: str,
    patient_id_issuer: str,
    yes: bool,
    server: str,
) -> None:
    """Remove all cases of one image, series, study or patient: no answer shows them again.

    Their bytes stay in files of the library until the engine rewrites those.
    """
    target = {
        "case_id": case_id,
        "instance_uid": instance_uid,
        "series_uid": series_uid,
        "study_uid": study_uid,
        "patient_id": patient_id,
    }
    if sum(bool(value) for value in target.values()) != 1:
        raise InvalidInput("name exactly one thing to erase: --case, --instance, --series, --study or --patient")
    if not yes:
        click.confirm("Remove these cases?", abort=True)
    with connected(server) as client:
        count = client.erase(**target, patient_id_issuer=patient_id_issuer)
    click.echo(f"{count} cases erased")


def to_json(case: Case) -> dict[str, object]:
    """Returns the case for machines, without its picture."""
    return {key: value for key, value in dataclasses.asdict(case).items() if key != "thumbnail_jpeg"}
