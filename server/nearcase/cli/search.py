"""nearcase search."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from nearcase.cli.facts import facts_given, facts_options
from nearcase.cli.options import connected, console, frame_option, json_option, print_json, server_option
from nearcase.cli.query import Asked, read_query
from nearcase.cli.reports import check_report
from nearcase.cli.series import read_whole
from nearcase.client import Example, Order
from nearcase.decide.vote import decide
from nearcase.errors import InvalidInput
from nearcase.report.page import PageSearch, render_page
from nearcase.report.text import encoder_line, neighbour_table
from nearcase.types import CaseFacts, Decision, Hit, SearchResult

WAYS = ["instance", "series", "study", "patient"]
METHODS = ["pooled", "frequency", "max", "sum"]
MAX_FILES = 256


@click.command()
@click.argument("paths", nargs=-1, metavar="[FILE|FOLDER]...", type=click.Path(exists=True, path_type=Path))
@click.option("--case", "case_id", default="", metavar="ID", help="Search with a case of the library.")
@click.option("--series", "series_uid", default="", metavar="UID", help="Search with a whole series of the library.")
@click.option("--study", "study_uid", default="", metavar="UID", help="Search with a whole study of the library.")
@click.option(
    "--unlike",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A file that the wanted cases do not look like; may be repeated.",
)
@click.option(
    "--as",
    "kind",
    type=click.Choice(["images", "series"]),
    default="images",
    show_default=True,
    help="What is sent: images, or one whole series, for a server whose encoder takes 3D series.",
)
@click.option("-k", "--k", type=click.IntRange(1, 1000), default=5, show_default=True, help="How many neighbours.")
@click.option("--filter", "where", default="", help='Which cases: "modality = CT and age >= 40 and label.mass = 1".')
@click.option("--min-similarity", type=click.FloatRange(-1, 1), default=None, help="Least cosine of a neighbour.")
@click.option("--own-patient", is_flag=True, help="Let the query's own patient, study and file be found.")
@click.option(
    "--near-duplicates",
    type=click.FloatRange(0, 1),
    default=None,
    metavar="COSINE",
    help="Leave out images this much like the query or more, 0.99 for example: copies under another name.",
)
@click.option(
    "--group-by",
    type=click.Choice(WAYS),
    default=None,
    help="One neighbour for each; default instance, and series or study where one is searched with.",
)
@click.option(
    "--series-method",
    type=click.Choice(METHODS),
    default=None,
    help="How the images of a series are joined: pooled into one embedding, or each naming its 20 nearest, ordered by "
    "how often a group is named (frequency), its best similarity (max) or their sum.  [default: pooled]",
)
@click.option("--pooling", type=click.Choice(["mean", "median", "max"]), default=None, help="For pooled; default mean.")
@click.option(
    "--diversity",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.0,
    help="Above 0, neighbours differ from each other; 0.3 is a start.",
)
@frame_option
@facts_options
@click.option(
    "--report", type=click.Path(dir_okay=False, writable=True, path_type=Path), help="Write an HTML evidence page."
)
@json_option
@server_option
def search(
    paths: tuple[Path, ...],
    case_id: str,
    series_uid: str,
    study_uid: str,
    unlike: tuple[Path, ...],
    kind: str,
    k: int,
    where: str,
    min_similarity: float | None,
    own_patient: bool,
    near_duplicates: float | None,
    group_by: str | None,
    series_method: str | None,
    pooling: str | None,
    diversity: float,
    frame: int | None,
    report: Path | None,
    as_json: bool,
    server: str,
) -> None:
    """Find the prior cases most like FILE, a DICOM, NIfTI, PNG or JPEG image.

    Several FILEs, or the FOLDER of a DICOM series, are searched with as one series: its slices together find series.
    Large series are sent in part, evenly spaced, and that is said.

    The query's own patient, study, series and copies of the file are left out unless --own-patient is given; a file
    that states no patient needs --patient for that. Where the neighbours tell an outcome (labels), the share of the
    evidence for each value is printed under them.

    \b
      nearcase search film.dcm -k 5 --filter "modality = DX" --report evidence.html
      nearcase search chest-ct/ --group-by patient
      nearcase search chest-ct/ --as series
      nearcase search wanted.dcm --unlike artefact.dcm
    """
    if kind == "series":
        if case_id or series_uid or study_uid or unlike or frame:
            raise InvalidInput("expected one file or folder alone with --as series")
        asked = read_whole(paths, facts_given())
    else:
        most = MAX_FILES - len(unlike)
        asked = read_query(paths, frame, case_id, series_uid, study_uid, most=most, facts=facts_given())
    check_report(report)
    method = series_method or ("pooled" if asked.is_series else "")
    against = tuple(Example(image=path, weight=-1.0) for path in unlike)
    with connected(server) as client:
        result = client.search(
            examples=(*asked.examples, *against),
            k=k,
            where=where,
            min_similarity=min_similarity,
            own_patient=own_patient,
            order=Order(group_by or "", method, pooling or "", diversity, near_duplicates),
            thumbnails=report is not None,
        )
    tell(result, asked, report, as_json=as_json)


def tell(result: SearchResult, asked: Asked, report: Path | None, *, as_json: bool) -> None:
    """Prints what was found, then writes the page: what was found is not lost with it."""
    decisions, notes = weigh_labels(result.hits), (*asked.notes, *result.notes)
    if as_json:
        print_json(to_json(result, decisions) | {"notes": list(notes)})
    else:
        print_result(result, decisions, asked.notes)
    if report:
        write_page(report, PageSearch(asked.name, result, decisions, notes))
    if report and not as_json:
        console().print(f"Wrote {report}", markup=False)


def write_page(report: Path, found: PageSearch) -> None:
    """Writes the evidence page of one search."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    page = render_page([found], title=f"Evidence for {found.name}", generated_at=now)
    report.write_text(page, encoding="utf-8")


def weigh_labels(hits: tuple[Hit, ...]) -> tuple[Decision, ...]:
    """Returns what the hits say of each label that any of them has."""
    names = sorted({name for hit in hits for name in hit.case.labels})
    return tuple(decide(name, hits) for name in names)


def print_result(result: SearchResult, decisions: tuple[Decision, ...], notes: tuple[str, ...]) -> None:
    """Prints the neighbours, the votes, and what the encoder is."""
    out = console()
    for note in notes:
        out.print(f"Searched with {note}.", markup=False)
    for note in result.notes:
        out.print(f"Note: {note}", markup=False)
    out.print(neighbour_table(result.hits))
    if not result.hits:
        out.print(f"No case in scope ({result.candidate_count} candidates).")
    for decision in decisions:
        out.print(decision.explanation, markup=False)
    if result.timings:
        out.print(f"{result.candidate_count} cases in scope, {result.timings.total_ms:.0f} ms in the server.")
    out.print(encoder_line(result.encoder), markup=False)


def to_json(result: SearchResult, decisions: tuple[Decision, ...]) -> dict[str, Any]:
    """Returns the result for machines, without pictures."""
    return {
        "hits": [{"rank": rank, **_place(hit), **_case(hit)} for rank, hit in enumerate(result.hits, 1)],
        "votes": [
            {"label": decision.finding, "votes": [dataclasses.asdict(vote) for vote in decision.votes]}
            for decision in decisions
        ],
        "query": [
            {
                "facts": _stated(image.facts),
                "frame_number": image.frame_number,
                "rules": list(image.rules),
                "image_count": image.image_count,
            }
            for image in result.query_images
        ],
        "candidate_count": result.candidate_count,
        "encoder": dataclasses.asdict(result.encoder),
        "timings": dataclasses.asdict(result.timings) if result.timings else None,
    }


def _place(hit: Hit) -> dict[str, Any]:
    """Why the hit has its rank."""
    return {"similarity": hit.similarity, "matched_count": hit.matched_count, "score": hit.score}


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
