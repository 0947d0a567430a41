"""nearcase-eval fit."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from nearcase.decide.finding import Finding
from nearcase.decide.findings import read_finding
from nearcase.decide.fitted import Fitted, write_fitted
from nearcase.decide.rate import decimal
from nearcase.encode.card import default_encoder_folder, read_card
from nearcase.encode.runtime import open_encoder
from nearcase.errors import InvalidInput
from nearcase.processors import decoder_count
from nearcase.report.decision_view import area as shown
from nearcase_eval.cohort import read_cohort
from nearcase_eval.embedding import embed_cohort
from nearcase_eval.fit import Plan, fit
from nearcase_eval.fit_calibration import KINDS as CALIBRATIONS
from nearcase_eval.fit_page import (
    CALLED_COLUMNS,
    POINT_COLUMNS,
    PREDICTIVE_COLUMNS,
    called,
    called_rows,
    point_rows,
    predictive_rows,
    render_fit,
)
from nearcase_eval.fit_points import DEFAULT, PAIR, read_wishes
from nearcase_eval.fit_probe import KINDS as PROBES
from nearcase_eval.fit_prompt import prompts_of
from nearcase_eval.fit_reference import Reference, Told, nameless, of_cohort, of_library


@click.command("fit")
@click.argument("source", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--finding",
    "file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    required=True,
    help="The finding's TOML file; its key `fitted` names the file that is written beside it.",
)
@click.option(
    "--point",
    "points",
    multiple=True,
    default=DEFAULT,
    help="sensitivity=0.90:pac (or :empirical, :conformal), specificity=..., youden, cost=10@0.02; several times.",
)
@click.option(
    "--confidence", type=click.FloatRange(0, 1, min_open=True, max_open=True), default=0.95, show_default=True
)
@click.option("--calibration", type=click.Choice(CALIBRATIONS), default="isotonic", show_default=True)
@click.option(
    "--probe", type=click.Choice(PROBES), default="logistic", show_default=True, help="Where the scorer has one."
)
@click.option(
    "--by",
    multiple=True,
    type=click.Choice(("sex", "age", "none")),
    default=("sex", "age"),
    show_default=True,
    help="Groups that must be validated before a call is made for their people.",
)
@click.option(
    "--encoder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder; for a cohort, and for prompts.",
)
@click.option("--cache", type=click.Path(file_okay=False, path_type=Path), help="Keep a cohort's embeddings here.")
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the split, the draws and the probe."
)
def fit_command(
    source: Path,
    file: Path,
    points: tuple[str, ...],
    confidence: float,
    calibration: str,
    probe: str,
    by: tuple[str, ...],
    encoder: Path | None,
    cache: Path | None,
    seed: int,
) -> int:
    """Fit calibration and operating points for a finding.

    SOURCE is the data folder of a server that is not running (each case is asked with its own patient left out), or a
    cohort.toml. Writes the sealed fit that the finding names, and a page of it, beside the finding.

    A point that the data can not support is refused with the number of patients it would take.
    """
    finding = _finding(file)
    plan = Plan(
        read_wishes(points),
        confidence,
        calibration,
        probe,
        tuple(each for each in by if each != "none"),
        seed=seed,
    )
    folder = encoder or default_encoder_folder()
    with _bar() as told:
        is_library = source.is_dir()
        reference = (
            of_library(source, finding, told) if is_library else _of_cohort(source, finding, folder, cache, told)
        )
    fitted = fit(finding, reference, plan, prompts_of(finding, folder, reference.encoder))
    target = file.parent / finding.fitted
    _write(target, write_fitted(fitted))
    card = read_card(folder)
    statement = card.statement if card.identity == reference.encoder else f"Encoder {reference.encoder}."
    caveat = _caveat(reference)
    page = render_fit(fitted, statement=f"{statement} {caveat}".strip())
    _write(target.with_suffix(".html"), page.encode())
    print_fit(Console(highlight=False, width=None if sys.stdout.isatty() else 160), fitted)
    if caveat:
        click.echo(caveat)
    if not is_library:
        click.echo(
            "Fitted on a cohort: a server abstains with LIBRARY_CHANGED. For calls, fit on the server's own library."
        )
    click.echo(f"Wrote {target.name} and {target.with_suffix('.html').name} beside {file.name}")
    return 0


def _caveat(reference: Reference) -> str:
    """Patients who are not told apart are in both splits, and are each other's neighbours."""
    unknown = nameless(reference)
    if not unknown:
        return ""
    return (
        f"{unknown} of {len(reference.asked)} images state no patient, and each study or file of theirs counts as one: "
        "where several are of one person, the rates above are too high and the promises do not hold. Name the patients "
        "(column patient_id of the table that nearcase add takes) and fit again."
    )


def print_fit(out: Console, fitted: Fitted) -> None:
    """Prints what the points do to held-out patients, and what was refused."""
    held_out = fitted.held_out
    who = f"{held_out.positive_patients} held-out patients with the finding and {held_out.negative_patients} without"
    out.print(f"{fitted.finding}: {who}, of {fitted.library.labelled_count} labelled cases", markup=False)
    if fitted.auroc:
        area = fitted.auroc
        out.print(f"AUROC {shown(area)}", markup=False)
    if fitted.residuals:
        bound = fitted.residuals
        out.print(f"At most {bound.bound:.3g} off in {bound.level:.0%} of new patients", markup=False)
    table = Table(*POINT_COLUMNS, box=None, pad_edge=False)
    for row in point_rows(fitted):
        table.add_row(*row)
    out.print(table)
    if fitted.points:
        out.print(called(fitted), markup=False)
        _print_table(out, "Among held-out images with a call at the point:", CALLED_COLUMNS, called_rows(fitted))
    if values := predictive_rows(fitted):
        heading = f"At the held-out prevalence of {decimal(fitted.prevalence or 0.0)}:"
        _print_table(out, heading, PREDICTIVE_COLUMNS, values)
    for refusal in fitted.refusals:
        out.print(f"refused: {refusal.name}: {refusal.reason}", markup=False)
    if {PAIR[1], PAIR[2]} <= {point.name for point in fitted.points} and not fitted.pairs:
        out.print(f"no pair {PAIR[0]}: ruling out reaches as far as ruling in, no score lies between", markup=False)
    for group in fitted.groups:
        if not group.is_validated:
            out.print(f"not validated: {group.attribute} {group.name}: {group.reason}", markup=False)
            continue
        for point in fitted.points:
            if why := group.why_not([point], fitted.gap, fitted.curve):
                out.print(f"not validated: {group.attribute} {group.name}: {why}", markup=False)


def _print_table(out: Console, heading: str, columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    out.print(heading, markup=False)
    table = Table(*columns, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    out.print(table)


def _finding(file: Path) -> Finding:
    """The finding without its fit: the one that it names is about to be written."""
    try:
        text = file.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{file.name}: expected UTF-8") from error
    finding = read_finding(text, file.name)
    if not finding.fitted:
        raise InvalidInput(f'{file.name}: expected fitted = "{finding.name}.json", the file to write', field="fitted")
    return finding


def _of_cohort(file: Path, finding: Finding, encoder: Path, cache: Path | None, told: Told) -> Reference:
    cohort, loaded = read_cohort(file), open_encoder(encoder)
    names = [image.name for image in cohort.images]
    workers = decoder_count()
    folder = cache or file.parent / f".{file.stem}-embeddings"
    embedded = embed_cohort(
        cohort.files, names, loaded, folder, progress=lambda done: told(done, len(names)), workers=workers
    )
    for name, reason in sorted(embedded.refused.items())[:10]:
        click.echo(f"not read: {name}: {reason}", err=True)
    vectors = dict(zip(embedded.names, embedded.vectors, strict=True))
    return of_cohort(cohort, vectors, finding, loaded.card.identity, lambda done, total: None)


def _write(path: Path, data: bytes) -> None:
    part = path.with_name(f"{path.name}.part")
    part.write_bytes(data)
    os.replace(part, path)


@contextmanager
def _bar() -> Iterator[Told]:
    console = Console(file=sys.stderr, highlight=False)
    columns = (TextColumn("asking"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=None)
        yield lambda done, total: progress.update(task, advance=done, total=total)
