"""nearcase search."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from nearcase.cli.options import (
    connected,
    console,
    file_argument,
    frame_option,
    json_option,
    print_json,
    server_option,
    shown,
)
from nearcase.decide.vote import decide
from nearcase.report.page import PageSearch, render_page
from nearcase.report.text import encoder_line, neighbour_table
from nearcase.types import CaseFacts, Decision, Hit, SearchResult


@click.command()
@file_argument
@click.option("-k", "--k", type=click.IntRange(1, 1000), default=5, show_default=True, help="How many neighbours.")
@click.option("--filter", "where", default="", help='Which cases: "modality = CT and age >= 40 and label.mass = 1".')
@click.option("--min-similarity", type=click.FloatRange(-1, 1), default=None, help="Least cosine of a neighbour.")
@click.option("--own-patient", is_flag=True, help="Let the query's own patient, study and file be found.")
@frame_option
@click.option(
    "--report", type=click.Path(dir_okay=False, writable=True, path_type=Path), help="Write an HTML evidence page."
)
@json_option
@server_option
def search(
    file: Path,
    k: int,
    where: str,
    min_similarity: float | None,
    own_patient: bool,
    frame: int | None,
    report: Path | None,
    as_json: bool,
    server: str,
) -> None:
    """Find the prior cases most like FILE, a DICOM, NIfTI, PNG or JPEG image.

    The query's own patient, study, series and copies of the file are left out unless --own-patient is given. Where
    the neighbours tell an outcome (labels), the share of the evidence for each value is printed under them.
    """
    with connected(server) as client:
        result = client.search(
            file,
            k=k,
            where=where,
            min_similarity=min_similarity,
            own_patient=own_patient,
            frame_number=frame,
            thumbnails=report is not None,
        )
    decisions = weigh_labels(result.hits)
    if report:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        name = shown(Path(file.name))
        page = render_page([PageSearch(name, result, decisions)], title=f"Evidence for {name}", generated_at=now)
        report.write_text(page, encoding="utf-8")
    if as_json:
        print_json(to_json(result, decisions))
    else:
        print_result(result, decisions, report)


def weigh_labels(hits: tuple[Hit, ...]) -> tuple[Decision, ...]:
    """Returns what the hits say of each label that any of them has."""
    names = sorted({name for hit in hits for name in hit.case.labels})
    return tuple(decide(name, hits) for name in names)


def print_result(result: SearchResult, decisions: tuple[Decision, ...], report: Path | None) -> None:
    """Prints the neighbours, the votes, and what the encoder is."""
    out = console()
    out.print(neighbour_table(result.hits))
    if not result.hits:
        out.print(f"No case in scope ({result.candidate_count} candidates).")
    for decision in decisions:
        out.print(decision.explanation, markup=False)
    if result.timings:
        out.print(f"{result.candidate_count} cases in scope, {result.timings.total_ms:.0f} ms in the server.")
    out.print(encoder_line(result.encoder), markup=False)
    if report:
        out.print(f"Wrote {report}", markup=False)


def to_json(result: SearchResult, decisions: tuple[Decision, ...]) -> dict[str, Any]:
    """Returns the result for machines, without pictures."""
    return {
        "hits": [{"rank": rank, "similarity": hit.similarity, **_case(hit)} for rank, hit in enumerate(result.hits, 1)],
        "votes": [
            {"label": decision.finding, "votes": [dataclasses.asdict(vote) for vote in decision.votes]}
            for decision in decisions
        ],
        "query": [
            {"facts": _stated(image.facts), "frame_number": image.frame_number, "rules": list(image.rules)}
            for image in result.query_images
        ],
        "candidate_count": result.candidate_count,
        "encoder": dataclasses.asdict(result.encoder),
        "timings": dataclasses.asdict(result.timings) if result.timings else None,
    }


def _case(hit: Hit) -> dict[str, Any]:
    case = hit.case
    return {
        "case_id": case.case_id,
        "facts": _stated(case.facts),
        "labels": dict(case.labels),
        "source": case.source,
        "frame_number": case.frame_number,
    }


def _stated(facts: CaseFacts) -> dict[str, Any]:
    return {key: value for key, value in dataclasses.asdict(facts).items() if value not in ("", None)}
