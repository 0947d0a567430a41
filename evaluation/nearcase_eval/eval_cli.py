"""The `nearcase-eval` command: from images to a report, through the server's own code.

Exit codes: 0 pass, 1 fail, 2 bad input, 3 inconclusive.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from nearcase.errors import InvalidInput, NearcaseError, NotFound, Unsupported
from nearcase.processors import decoder_count

BAD_INPUT, FAULT = 2, 1

try:
    import click
    from rich.console import Console
    from rich.table import Table

    from nearcase.encode.card import default_encoder_folder
    from nearcase.encode.runtime import open_encoder
    from nearcase.report.text import encoder_line
    from nearcase_eval.audit_cli import group as audit_group
    from nearcase_eval.card_cli import card
    from nearcase_eval.cohort import read_cohort
    from nearcase_eval.encoders_cli import compare_encoders_command
    from nearcase_eval.fit_cli import fit_command
    from nearcase_eval.progress import bars
    from nearcase_eval.recipes_cli import recipe
    from nearcase_eval.run import NEIGHBOURS, PROBE, CohortResult, run_cohort, write_scores
except ModuleNotFoundError as error:
    if (error.name or "").startswith("nearcase"):
        raise  # a fault of ours, not a missing extra
    need = "pip install 'nearcase[server,cpu,evaluation]'"
    print(f"nearcase-eval: {error.name} is not installed; run: {need}", file=sys.stderr)
    raise SystemExit(BAD_INPUT) from None


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="nearcase", prog_name="nearcase-eval")
def group() -> None:
    """Evaluate an encoder and a library on a cohort of images with outcomes, ages, sexes and patients.

    \b
    nearcase-eval run cohort.toml --out evaluation-output

    docs/cohorts.md tells how a cohort is described. A table of scores alone is audited by nearcase-audit.
    """


for command in (recipe, fit_command, compare_encoders_command, card):
    group.add_command(command)


@group.command()
@click.argument("cohort", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), default=Path("evaluation-output"), show_default=True
)
@click.option(
    "--encoder", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Folder; default nearcase's own."
)
@click.option("-k", "--k", type=click.IntRange(1, 1000), default=10, show_default=True, help="Neighbours that vote.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the probe's folds and the audit's replicates.")
@click.option(
    "--tolerance",
    default="auc=0.05",
    show_default=True,
    help="Largest gaps that are accepted, as nearcase-audit reads them.",
)
@click.option(
    "--by", multiple=True, default=("sex", "age"), show_default=True, help="Attributes whose groups are compared."
)
def run(cohort: Path, out: Path, encoder: Path | None, k: int, seed: int, tolerance: str, by: tuple[str, ...]) -> int:
    """Embed, search and vote for every image of COHORT, its own patient left out; then audit the scores.

    Writes to OUT: scores.csv (A_ is the vote of the neighbours, B_ a linear probe), retrieval.json, and the audit's
    report. A broken run goes on where it stopped.
    """
    described = read_cohort(cohort)
    loaded = open_encoder(encoder or default_encoder_folder())
    out.mkdir(parents=True, exist_ok=True)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 140)
    with bars() as told:
        result = run_cohort(described, loaded, out / "cache", k=k, seed=seed, workers=decoder_count(), progress=told)
    write_scores(result, out / "scores.csv")
    (out / "retrieval.json").write_text(json.dumps(retrieval_of(result), indent=2) + "\n", "utf-8")
    print_result(console, result)
    console.print(encoder_line(loaded.card.summary(loaded.runtime)), markup=False)
    return audit(out, result, seed, tolerance, by)


def audit(out: Path, result: CohortResult, seed: int, tolerance: str, by: tuple[str, ...]) -> int:
    """Audits the scores as a person would by hand, and returns the audit's exit code."""
    arguments = ["run", str(out / "scores.csv"), "--out", str(out / "audit"), "--patient", "patient_id"]
    arguments += ["--label", "y_*", "--score", f"{NEIGHBOURS}*", "--compare", f"{PROBE}*"]
    arguments += [part for attribute in by for part in ("--by", attribute)]
    arguments += ["--confounders", ",".join(dict.fromkeys(attribute.split(":")[0] for attribute in by))]
    arguments += ["--seed", str(seed), "--tolerance", tolerance, "--title", result.cohort.name]
    code = audit_group.main(args=arguments, prog_name="nearcase-audit", standalone_mode=False)
    return int(code or 0)


def retrieval_of(result: CohortResult) -> dict[str, dict[str, dict[str, float | int | None]]]:
    """Returns the retrieval metrics with their intervals, for machines."""
    return {
        each.finding.name: {
            metric.name: {
                "value": metric.estimate.value,
                "low": metric.estimate.low,
                "high": metric.estimate.high,
                "n": metric.estimate.n,
                "patients": metric.estimate.patients,
            }
            for metric in each.retrieval
        }
        for each in result.results
    }


def print_result(console: Console, result: CohortResult) -> None:
    """Prints how often the first neighbours share the outcome, and what could not be read."""
    table = Table("finding", "images", "positives", "precision@1", "precision@5", "mAP", box=None, pad_edge=False)
    for each in result.results:
        cells = {metric.name: metric.estimate.value for metric in each.retrieval}
        shown = [
            f"{value:.3f}" if (value := cells.get(name)) is not None else "–"
            for name in ("precision@1", "precision@5", "mAP")
        ]
        positives = sum(image.truths[each.finding.name] for image in each.images)
        table.add_row(each.finding.name, str(len(each.images)), str(positives), *shown)
    console.print(table)
    for name, reason in sorted(result.refused.items())[:10]:
        console.print(f"not read: {name}: {reason}", markup=False)
    if len(result.refused) > 10:
        console.print(f"not read: {len(result.refused) - 10} more")


def main() -> None:
    """Runs the command line and exits."""
    try:
        code = group.main(prog_name="nearcase-eval", standalone_mode=False) or 0
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except click.Abort:
        code = 130
    except NearcaseError as error:
        print(f"nearcase-eval: {error}", file=sys.stderr)
        code = BAD_INPUT if isinstance(error, (InvalidInput, Unsupported, NotFound)) else FAULT
    sys.exit(int(code))
