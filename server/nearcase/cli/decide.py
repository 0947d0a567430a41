"""nearcase decide."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from nearcase.cli.facts import facts_given, facts_options
from nearcase.cli.options import connected, console, frame_option, json_option, print_json, server_option
from nearcase.cli.query import Asked, decide_about, read_query
from nearcase.cli.reports import check_report
from nearcase.client import Client
from nearcase.decide import rate
from nearcase.report import words
from nearcase.report.decision_page import render_decision
from nearcase.report.decision_view import FindingFit, among_called, figures, percent
from nearcase.report.text import case_cells, encoder_line, one_line, plain
from nearcase.types import Decision, DecisionResult

COLUMNS = ("#", "similarity", "weight", "value", "modality", "body part", "age", "sex", "outcome", "where from")
SHOWN = 10
MAX_FILES = 64
SHARE = click.FloatRange(0, 1, min_open=True, max_open=True)
near_duplicates_option = click.option(
    "--near-duplicates",
    type=click.FloatRange(0.9, 1),
    default=None,
    metavar="COSINE",
    help="Leave out images this much like the query or more, 0.99 for example: copies of it. No call is made then.",
)


@click.command()
@click.argument("paths", nargs=-1, metavar="[FILE|FOLDER]...", type=click.Path(exists=True, path_type=Path))
@click.option("--case", "case_id", default="", metavar="ID", help="Decide about a case of the library.")
@click.option("--series", "series_uid", default="", metavar="UID", help="Decide about a whole series of the library.")
@click.option("--study", "study_uid", default="", metavar="UID", help="Decide about a whole study of the library.")
@click.option("--finding", default="", help="By name; default all in scope.")
@click.option("--operating-point", default="", metavar="NAME", help="A fitted point; default the finding's own.")
@click.option("--sensitivity", type=SHARE, default=None, help="The least sensitivity, kept with 95 % confidence.")
@click.option("--specificity", type=SHARE, default=None, help="The least specificity, kept with 95 % confidence.")
@click.option("--cost-ratio", type=float, default=None, help="Cost of a miss over a false alarm; needs --prevalence.")
@click.option("--prevalence", type=SHARE, default=None, help="Where the decision is used, for PPV and NPV.")
@click.option("--filter", "where", default="", help='Which cases may be evidence: "modality = CT and age >= 40".')
@near_duplicates_option
@frame_option
@facts_options
@click.option(
    "--report", type=click.Path(dir_okay=False, writable=True, path_type=Path), help="Write an HTML decision page."
)
@json_option
@server_option
def decide(
    paths: tuple[Path, ...],
    case_id: str,
    series_uid: str,
    study_uid: str,
    finding: str,
    operating_point: str,
    sensitivity: float | None,
    specificity: float | None,
    cost_ratio: float | None,
    prevalence: float | None,
    where: str,
    near_duplicates: float | None,
    frame: int | None,
    report: Path | None,
    as_json: bool,
    server: str,
) -> None:
    """Decide about FILE, a DICOM, NIfTI, PNG or JPEG image, from the labelled prior cases most like it.

    Several FILEs, or the FOLDER of a DICOM series, are decided about as one, by the mean of their embeddings. Points
    that were fitted on single images do not hold for those: the score and the evidence are shown, and no call is made.

    The patient's own cases are no evidence. A PNG or JPEG states no patient: name them with --patient, and --age and
    --sex, without which a finding that was not validated for every group makes no call. A file that states otherwise is
    refused.

    A call needs an operating point that was fitted for the finding (nearcase-eval fit); without one, or where the
    evidence is too thin, there is no call, and the reason is given. `nearcase replay` takes the record's id.
    """
    asked = read_query(paths, frame, case_id, series_uid, study_uid, most=MAX_FILES)
    check_report(report)
    with connected(server) as client:
        result = decide_about(
            client,
            asked,
            facts_given(),
            finding=finding,
            operating_point=operating_point,
            sensitivity=sensitivity,
            specificity=specificity,
            cost_ratio=cost_ratio,
            prevalence=prevalence,
            where=where,
            near_duplicates=near_duplicates,
            thumbnails=report is not None,
        )
        if as_json:
            print_json(to_json(result))
        else:
            for note in asked.notes:
                console().print(f"Decided about {note}.", markup=False)
            print_result(console(), result)
        if report and result.decisions:
            write_page(report, client, result, asked)
    if report and result.decisions and not as_json:
        console().print(f"Wrote {report}", markup=False)


def write_page(report: Path, client: Client, result: DecisionResult, asked: Asked) -> None:
    """Writes the decision page; the decisions were printed, and have their records, whatever becomes of it."""
    decided = {decision.finding for decision in result.decisions}
    fits = {
        each.name: FindingFit(client.roc(each.name) if each.operating_points else None, each.refused_points)
        for each in client.findings()
        if each.name in decided
    }
    now = datetime.now(UTC).isoformat(timespec="seconds")
    page = render_decision(result, fits, title=f"Decision on {_given(asked)}", generated_at=now)
    report.write_text(page, encoding="utf-8")


def _given(asked: Asked) -> str:
    """Names of files and ids of cases may be those of patients, and a page is passed on."""
    if not asked.files:
        return "what the library holds"
    return "the picture given" if asked.image_count == 1 else f"the {words.images(asked.image_count)} given"


def print_result(out: Console, result: DecisionResult) -> None:
    """Prints each decision with its evidence, and what the encoder is."""
    if not result.decisions:
        out.print("No finding is for images of this kind, or no case of the library has its label.")
    for note in result.notes:
        _say(out, f"Note: {note}")
    for decision in result.decisions:
        print_decision(out, decision)
    _say(out, encoder_line(result.encoder))


def print_decision(out: Console, decision: Decision) -> None:
    """Prints the call, what it rests on, and the first of the evidence."""
    out.print(f"[bold]{plain(decision.finding)}[/bold]: {plain(words.call(decision))}")
    _say(out, decision.explanation)
    point = decision.operating_point
    if point is not None:
        _say(out, f"Promise of {point.name}: {point.guarantee or f'none ({point.method})'}.")
        found = f"sensitivity {percent(point.sensitivity)}, specificity {percent(point.specificity)}"
        out.print(f"Held-out {found}, of all images.", markup=False)
        out.print(f"Where a call is made: {among_called(point)}.", markup=False)
    for fact in figures(decision):
        if not fact.is_missing:
            _say(out, f"  {fact.name}: {fact.value}")
    table = Table(*COLUMNS, box=None, pad_edge=False)
    for rank, piece in enumerate(decision.evidence[:SHOWN], 1):
        case = piece.hit.case
        cells = (str(rank), f"{piece.hit.similarity:.3f}", rate.percent(piece.weight), plain(piece.value))
        table.add_row(*cells, *case_cells(case.facts, case.labels, case.source))
    if decision.evidence:
        out.print(table)
    if decision.record_id:
        _say(out, f"Record {decision.record_id}")
        out.print()


def _say(out: Console, text: str) -> None:
    """Prints what a server or a record says, which no one vouches for, as one line."""
    out.print(one_line(text), markup=False)


def to_json(result: DecisionResult) -> dict[str, Any]:
    """Returns the decisions for machines, without pictures."""
    return {
        "decisions": [decision_json(decision) for decision in result.decisions],
        "encoder": dataclasses.asdict(result.encoder),
        "notes": list(result.notes),
    }


def decision_json(decision: Decision) -> dict[str, Any]:
    """Returns one decision for machines; of each case its id, value, similarity and weight."""
    bare = dataclasses.asdict(dataclasses.replace(decision, evidence=()))
    bare["call"] = decision.call.value
    for shown, said in zip(bare["point_calls"], decision.point_calls, strict=True):
        shown["call"] = said.call.value
    bare["evidence"] = [
        {
            "case_id": piece.hit.case.case_id,
            "similarity": piece.hit.similarity,
            "value": piece.value,
            "weight": piece.weight,
            "supporting": piece.is_supporting,
        }
        for piece in decision.evidence
    ]
    return bare
