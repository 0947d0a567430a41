"""nearcase library erase, erasures: erasing cases, and the certificates of it."""

from __future__ import annotations

import dataclasses
import itertools
from datetime import UTC, datetime

import click
from rich.table import Table

from nearcase.cli.options import connected, console, json_option, print_json, server_option
from nearcase.errors import InvalidInput
from nearcase.types import Erasure


@click.command()
@click.option("--case", "case_id", default="", help="One image by its case id.")
@click.option("--instance", "instance_uid", default="", help="One image by its SOP Instance UID.")
@click.option("--series", "series_uid", default="", help="A series by its UID.")
@click.option("--study", "study_uid", default="", help="A study by its UID.")
@click.option("--patient", "patient_id", default="", help="All of a patient, by Patient ID.")
@click.option("--issuer", "patient_id_issuer", default="", help="Issuer of the Patient ID; default none stated.")
@click.option(
    "--older-than-days",
    type=click.FloatRange(0, min_open=True),
    default=None,
    metavar="DAYS",
    help="All cases that were added longer ago, by the server's clock.",
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@server_option
def erase(
    case_id: str,
    instance_uid: str,
    series_uid: str,
    study_uid: str,
    patient_id: str,
    patient_id_issuer: str,
    older_than_days: float | None,
    yes: bool,
    as_json: bool,
    server: str,
) -> None:
    """Erase all cases of one image, series, study or patient, and print the certificate.

    The files that held them are rewritten, they are blotted out of the records of decisions, of which those about them
    are removed, and a search for them has to find nothing. Exit code 1 where one is found again.
    """
    named = {
        "case_id": case_id,
        "instance_uid": instance_uid,
        "series_uid": series_uid,
        "study_uid": study_uid,
        "patient_id": patient_id,
    }
    if sum(map(bool, (*named.values(), older_than_days))) != 1:
        raise InvalidInput(
            "name exactly one thing to erase: --case, --instance, --series, --study, --patient or --older-than-days"
        )
    if not yes:
        click.confirm("Erase these cases for good?", abort=True, err=True)
    with connected(server) as client:
        count, certificate = client.library.erase(
            **named, patient_id_issuer=patient_id_issuer, older_than_days=older_than_days or 0.0
        )
    if as_json:
        print_json({"erased_count": count, "certificate": certificate and to_json(certificate)})
    else:
        _print(count, certificate)
    if certificate and certificate.found_again_count:
        raise SystemExit(1)


@click.command()
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="Most certificates to print.")
@json_option
@server_option
def erasures(limit: int, as_json: bool, server: str) -> None:
    """List the certificates of what was erased, newest first."""
    with connected(server) as client:
        found = list(itertools.islice(client.library.erasures(), limit))
    if as_json:
        print_json([to_json(erasure) for erasure in found])
        return
    table = Table("erasure", "when", "what", "cases", "records", "rewritten", "found again", box=None, pad_edge=False)
    for each in found:
        counts = (each.case_count, each.record_count, "yes" if each.is_rewritten else "later", each.found_again_count)
        table.add_row(each.erasure_id, _when(each), each.target, *map(str, counts))
    console().print(table)


def to_json(erasure: Erasure) -> dict[str, object]:
    """Returns the certificate for machines, with the time as ISO 8601 too."""
    return dataclasses.asdict(erasure) | {"erased_at": _when(erasure)}


def _print(count: int, certificate: Erasure | None) -> None:
    if certificate is None:
        click.echo("0 cases erased: there were none")
        return
    files = "the files that held them are rewritten"
    if not certificate.is_rewritten:
        files = "the index server rewrites its files later, on its own"
    click.echo(f"{count} cases erased; {files}")
    click.echo(f"certificate {certificate.erasure_id}, {_when(certificate)}, {certificate.target}")
    click.echo(
        f"{certificate.record_count} decision records blotted out or removed; "
        f"{certificate.found_again_count} cases found again by id, count and search"
    )


def _when(erasure: Erasure) -> str:
    return datetime.fromtimestamp(erasure.erased_at_s, UTC).isoformat(timespec="seconds")
