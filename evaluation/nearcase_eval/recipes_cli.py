"""The command `nearcase-eval recipe`: the files of a public set to a cohort."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from nearcase.errors import InvalidInput, Unsupported
from nearcase_eval.cohort import Cohort, read_cohort
from nearcase_eval.progress import bars
from nearcase_eval.recipes.catalogue import RECIPES, recipe_of
from nearcase_eval.recipes.writing import Written, write_cohort

LIST = "list"


@click.command()
@click.argument("name")
@click.argument("folder", required=False, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), help="COHORT.toml; COHORT.csv is put beside it."
)
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def recipe(name: str, folder: Path | None, out: Path | None, as_json: bool) -> None:
    """Describe a public data set as a cohort, from the files as its providers distribute them.

    \b
    nearcase-eval recipe list
    nearcase-eval recipe isic2019 DOWNLOADS --out isic2019.toml

    You bring the data and keep to its terms. Nothing is copied but the patches of PatchCamelyon, which come in HDF5 and
    are written as PNG to COHORT-images.
    """
    if name == LIST:
        return _print_list(as_json)
    if folder is None or out is None:
        raise InvalidInput(f"expected a folder and --out COHORT.toml for the recipe {name}, or the recipe list")
    chosen = recipe_of(name)
    if chosen.refused:
        raise Unsupported(f"{chosen.name} can not be served yet: {chosen.refused}")
    with bars() as told:
        built = chosen.build(folder, out.with_name(f"{out.stem}-images"), told)
    written = write_cohort(chosen, built, out)
    _print_cohort(read_cohort(out), written, as_json)


def _print_list(as_json: bool) -> None:
    if as_json:
        fields = ("name", "title", "modality", "terms", "source", "unconfirmed", "cautions", "refused")
        click.echo(json.dumps([{key: getattr(each, key) for key in fields} for each in RECIPES], indent=2))
        return
    table = Table("recipe", "set", "modality", "terms", box=None, pad_edge=False)
    for each in RECIPES:
        table.add_row(each.name, each.title, each.modality, "refused, see below" if each.refused else each.terms)
    console = _console()
    console.print(table)
    for each in RECIPES:
        if each.refused:
            console.print(f"{each.name}: {each.refused}", markup=False)


def _print_cohort(cohort: Cohort, written: Written, as_json: bool) -> None:
    counts = {
        finding.name: [
            sum(image.truths.get(finding.name) is truth for image in cohort.images if image.is_query)
            for truth in (True, False)
        ]
        for finding in cohort.findings
    }
    patients = len({image.patient for image in cohort.images})
    queries = sum(image.is_query for image in cohort.images)
    if as_json:
        found = {
            "cohort": str(written.toml),
            "table": str(written.table),
            "protocol": written.protocol,
            "images": len(cohort.images),
            "queries": queries,
            "patients": patients,
            "findings": {name: {"positives": yes, "negatives": no} for name, (yes, no) in counts.items()},
            "notes": list(written.notes),
        }
        click.echo(json.dumps(found, indent=2, ensure_ascii=False))
        return
    console = _console()
    console.print(f"{written.toml}: {cohort.name}, {len(cohort.images)} images of {patients} patients", markup=False)
    console.print(f"{written.protocol}, {queries} queries", markup=False)
    table = Table("finding", "positives", "negatives", box=None, pad_edge=False)
    for name, (yes, no) in counts.items():
        table.add_row(name, str(yes), str(no))
    console.print(table)
    for note in written.notes:
        console.print(f"note: {note}", markup=False)


def _console() -> Console:
    return Console(highlight=False, width=None if sys.stdout.isatty() else 160)
