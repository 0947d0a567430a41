"""The command `nearcase-eval compare-encoders`: encoders and baselines side by side on one cohort."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from nearcase.encode.base import Encoder
from nearcase.encode.card import default_encoder_folder
from nearcase.encode.runtime import open_encoder
from nearcase.processors import decoder_count
from nearcase_eval.audit.as_json import plain
from nearcase_eval.baselines import BASELINES, baseline
from nearcase_eval.cohort import read_cohort
from nearcase_eval.encoders import SHOWN, EncoderComparison, FindingComparison, Scored, compare_encoders
from nearcase_eval.estimate import Estimate
from nearcase_eval.gaps import Gap
from nearcase_eval.progress import bars

FORMAT = "nearcase-encoders/1"


@click.command("compare-encoders")
@click.argument("cohort", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--encoder",
    "folders",
    multiple=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of an encoder; may be repeated. Default: the one that ships with nearcase.",
)
@click.option(
    "--baseline",
    "baselines",
    multiple=True,
    type=click.Choice(list(BASELINES)),
    help="grey: 32 x 32 grey pixels; hog: oriented gradients. May be repeated.",
)
@click.option("-k", "--k", type=click.IntRange(5, 1000), default=10, show_default=True, help="Neighbours that vote.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the probe's folds.")
@click.option(
    "--cache",
    type=click.Path(file_okay=False, path_type=Path),
    help="Keep embeddings here, so that a broken run goes on.",
)
@click.option("--json", "as_json", is_flag=True, help="For machines: numbers unrounded.")
def compare_encoders_command(
    cohort: Path,
    folders: tuple[Path, ...],
    baselines: tuple[str, ...],
    k: int,
    seed: int,
    cache: Path | None,
    as_json: bool,
) -> None:
    """Compare encoders on COHORT: AUROC by neighbours and by a linear probe, retrieval, gaps, time and size.

    \b
    nearcase-eval compare-encoders cohort.toml --encoder mine --baseline grey --baseline hog

    An encoder that does not beat both baselines has not earned its place.
    """
    encoders = opened(folders, baselines)
    with ExitStack() as stack:
        kept = cache or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nearcase-encoders-")))
        told = stack.enter_context(bars())
        workers = decoder_count()
        found = compare_encoders(read_cohort(cohort), encoders, kept, k=k, seed=seed, workers=workers, progress=told)
    if as_json:
        click.echo(to_json(found))
    else:
        print_comparison(found)


def opened(folders: tuple[Path, ...], baselines: tuple[str, ...]) -> list[Encoder]:
    """Returns the encoders, the shipped one when none is named, then the baselines."""
    chosen: list[Encoder] = [open_encoder(folder) for folder in folders or (default_encoder_folder(),)]
    return chosen + [baseline(name) for name in baselines]


def to_json(found: EncoderComparison) -> str:
    """Returns the comparison for machines."""
    return json.dumps({"format": FORMAT} | plain(found), indent=1, ensure_ascii=False, allow_nan=False)


def print_comparison(found: EncoderComparison) -> None:
    """Prints the tables."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    console.print(f"{found.cohort}: {found.k} neighbours, seed {found.seed}", markup=False)
    console.print(_costs(found))
    for finding in found.findings:
        counts = f"{finding.positives} positives of {finding.rows} images, {finding.patients} patients"
        chance = f"random neighbours would have a precision of {finding.random_precision:.3f}"
        console.print(f"\n{finding.finding}: {counts}; {chance}", markup=False)
        console.print(_values(finding))
        console.print(_differences(finding))
    console.print("\nIntervals are 95 %, over patients. A gap is the largest difference of AUROC between two groups.")
    console.print("A neighbour counts as right when it has the query's own outcome, present or absent.")
    for encoder in found.encoders:
        console.print(f"{encoder.name}: {encoder.statement}", markup=False)


def _costs(found: EncoderComparison) -> Table:
    heads = ("encoder", "dimension", "file MB", "CPU ms, model", "CPU ms, file to embedding", "runtime")
    table = Table(*heads, box=None, pad_edge=False)
    for each in found.encoders:
        size = "–" if each.file_bytes is None else f"{each.file_bytes / 1e6:.1f}"
        times = (f"{each.latency.model_ms:.1f}", f"{each.latency.whole_ms:.1f}")
        table.add_row(each.name, str(each.dimension), size, *times, each.runtime)
    return table


def _values(finding: FindingComparison) -> Table:
    """One column for each encoder, since intervals are wide and encoders are few."""
    names = finding.scored[0].comparison.names
    table = Table("", *names, box=None, pad_edge=False)
    for scored in finding.scored:
        table.add_row(f"AUROC, {scored.scorer}", *map(_interval, scored.comparison.areas))
    for metric in SHOWN:
        found = [{each.name: each.estimate for each in finding.retrieval[name]}[metric] for name in names]
        table.add_row(f"{metric} of the neighbours", *map(_interval, found))
    for scored in finding.scored:
        for place, gaps in enumerate(scored.gaps[names[0]]):
            cells = [_gap(scored.gaps[name][place].largest) for name in names]
            table.add_row(f"gap by {gaps.attribute}, {scored.scorer}", *cells)
    return table


def _differences(finding: FindingComparison) -> Table:
    table = Table("difference of AUROC", *[scored.scorer for scored in finding.scored], box=None, pad_edge=False)
    columns = [list(_paired(scored)) for scored in finding.scored]
    for cells in zip(*columns, strict=True):
        table.add_row(cells[0][0], *[cell for _, cell in cells])
    return table


def _paired(scored: Scored) -> Iterator[tuple[str, str]]:
    for each in scored.comparison.differences:
        p = "" if each.p is None else f", p {each.p:.2g}"
        yield f"{each.first} − {each.second}", f"{_interval(each.estimate, signed=True)}{p}"


def _interval(estimate: Estimate, *, signed: bool = False) -> str:
    if estimate.value is None:
        return "not estimable"
    value = f"{estimate.value:+.3f}" if signed else f"{estimate.value:.3f}"
    if estimate.low is None or estimate.high is None:
        return value
    return f"{value} ({estimate.low:.3f} to {estimate.high:.3f})"


def _gap(gap: Gap) -> str:
    between = f", {gap.first} − {gap.second}" if gap.first else ""
    return f"{_interval(gap.estimate)}{between}"
