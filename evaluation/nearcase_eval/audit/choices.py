"""The options that several commands share, and the plan that they make."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import click

from nearcase.errors import InvalidInput
from nearcase_eval.audit.card import Card
from nearcase_eval.audit.plan import AGE_PRESETS, Plan, attribute, crossing, point_rule, prevalences, tolerance
from nearcase_eval.groups import Minimum

F = TypeVar("F", bound=Callable[..., Any])

RESAMPLED_ROWS = 50_000
"""Rows up to which 2,000 replicates are the default; above it nothing is resampled unless --boot says so."""

USUAL_REPLICATES = 2000
FORMATS = ("json", "html", "md", "csv")

FILE = click.Path(path_type=Path, dir_okay=False)

_INPUT = (
    click.argument("scores", type=FILE),
    click.option(
        "--label", metavar="COLUMN", help="Outcome, 0 or 1; a pattern such as 'label_*' for several findings."
    ),
    click.option("--score", metavar="COLUMN", help="Score; a pattern such as 'score_*' for several findings."),
    click.option("--patient", metavar="COLUMN", help="Who the image is of; 'none' when every row is another person."),
    click.option("--split", metavar="COLUMN", help="Which part a row is in; 'none' takes all rows as test rows."),
    click.option("--calibrate", metavar="PART", multiple=True, help="Part that thresholds are chosen on."),
    click.option("--test", metavar="PART", multiple=True, help="Part that is tested."),
    click.option("--on", metavar="COLUMN", help="Column that names images: joins --metadata, finds duplicates."),
    click.option("--metadata", type=FILE, help="Another table with columns such as age and sex."),
    click.option("--encoding", help="Of CSV files, such as windows-1252; default UTF-8."),
    click.option(
        "--op",
        "points",
        metavar="RULE",
        multiple=True,
        help="Operating point: sens=0.95[:empirical|conformal|pac@0.05], spec=..., youden, cost=10:1, threshold=0.4.",
    ),
    click.option("--prevalence", default="", metavar="Q,...", help="PPV and NPV are also given at these prevalences."),
    click.option("--seed", default=7, show_default=True, help="Of everything random."),
)

_AUDIT = (
    click.option("--compare", metavar="COLUMN", help="Score (or pattern) of another model, on the same rows."),
    click.option("--by", metavar="ATTRIBUTE", multiple=True, help="sex, age[:18,40,60,80] or any column.  [sex, age]"),
    click.option("--cross", metavar="A,B", multiple=True, help="Crossed groups, such as sex,age: explored only."),
    click.option("--age-preset", type=click.Choice(sorted(AGE_PRESETS)), help="Age bins of published studies.  [cxr]"),
    click.option("--missing", type=click.Choice(["report", "exclude"]), default="report", show_default=True),
    click.option("--ci", type=click.Choice(["delong", "bootstrap"]), default="delong", show_default=True),
    click.option(
        "--boot", type=click.IntRange(0), help="Replicates and permutations.  [2000 up to 50,000 rows, else 0]"
    ),
    click.option("--adjust", type=click.Choice(["holm", "bh"]), default="holm", show_default=True),
    click.option("--min-pos", type=click.IntRange(2), default=10, show_default=True, help="Patients a group needs."),
    click.option("--min-neg", type=click.IntRange(2), default=10, show_default=True),
    click.option(
        "--suppress", type=click.IntRange(0), default=0, metavar="N", help="Hide counts from 1 to N - 1; usual 11."
    ),
    click.option("--tolerance", metavar="auc=0.05,...", help="Largest gap accepted, of auc, fnr and fpr.  [each 0.05]"),
    click.option("--margin", type=float, help="Of non-inferiority in AUROC, with --compare."),
    click.option("--confounders", default="", metavar="COLUMN,...", help="What they predict alone, beside the score."),
    click.option(
        "--metric",
        "metrics",
        metavar="DOTTED.NAME",
        multiple=True,
        help="Any scikit-learn-style metric of scores, by group; NAME:called gives it the calls at the first --op.",
    ),
    click.option("--card", type=FILE, help="What the developer says of the model: TOML or YAML."),
    click.option("--title", default="Fairness audit", help="Heading of the pages."),
    click.option("--date", help="Printed as it is; default SOURCE_DATE_EPOCH, else no date."),
)


def input_options(command: F) -> F:
    """Adds the options that say which column is what and which operating points are wanted."""
    return _decorated(command, _INPUT)


def audit_options(command: F) -> F:
    """Adds the options of an audit."""
    return _decorated(command, (*_INPUT, *_AUDIT))


def plan_of(options: Mapping[str, Any], *, rows: int, card: Card) -> Plan:
    """Returns the plan that the options make.

    Raises:
        InvalidInput: An option can not be read.
    """
    attributes, edges = _attributes(options["by"], options["age_preset"])
    boot = options["boot"]
    return Plan(
        attributes=attributes,
        attributes_stated=bool(options["by"]),
        age_edges=edges,
        crossings=tuple(crossing(text) for text in options["cross"]),
        report_missing=options["missing"] == "report",
        points=tuple(point_rule(text) for text in options["points"]),
        prevalences=prevalences(options["prevalence"]) or _stated(card),
        interval=options["ci"],
        replicates=boot if boot is not None else USUAL_REPLICATES if rows <= RESAMPLED_ROWS else 0,
        seed=options["seed"],
        adjust=options["adjust"],
        minimum=Minimum(options["min_pos"], options["min_neg"]),
        suppress=options["suppress"],
        tolerance=tolerance(options["tolerance"] or ""),
        tolerance_stated=bool(options["tolerance"]),
        confounders=tuple(filter(None, options["confounders"].split(","))),
        metrics=options["metrics"],
        margin=options["margin"],
        votes=card.model.k if card.model.score_is_vote_share else None,
        calibrate=options["calibrate"],
        test=options["test"],
    )


def date_of(stated: str | None) -> str | None:
    """Returns the date to print: as stated, else from SOURCE_DATE_EPOCH; the clock is never read."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    if stated or not epoch:
        return stated
    if not epoch.isdigit():
        raise InvalidInput("expected seconds in SOURCE_DATE_EPOCH")
    return datetime.fromtimestamp(int(epoch), UTC).date().isoformat()


def formats_of(text: str) -> tuple[str, ...]:
    """Returns the formats in text such as json,html; raises InvalidInput for another."""
    found = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if wrong := [each for each in found if each not in FORMATS]:
        raise InvalidInput(f"expected formats of {', '.join(FORMATS)}, got {wrong[0]!r}", field="format")
    return found


def _attributes(by: Sequence[str], preset: str | None) -> tuple[tuple[str, ...], tuple[int, ...]]:
    read = [attribute(text) for text in by] or [("sex", None), ("age", None)]
    stated = [edges for _, edges in read if edges]
    if preset and stated:
        raise InvalidInput("expected age bins in --by or in --age-preset, not in both", field="by")
    edges = stated[-1] if stated else AGE_PRESETS[preset or "cxr"]
    return tuple(dict.fromkeys(name for name, _ in read)), edges


def _stated(card: Card) -> tuple[float, ...]:
    return (card.use.target_prevalence,) if card.use.target_prevalence is not None else ()


def _decorated(command: F, options: Sequence[Callable[[F], F]]) -> F:
    return functools.reduce(lambda found, option: option(found), reversed(options), command)
