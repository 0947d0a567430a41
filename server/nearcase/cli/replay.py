"""nearcase replay."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from nearcase.cli.again import ask_again, check_query
from nearcase.cli.decide import MAX_FILES, decision_json, print_decision
from nearcase.cli.facts import facts_given, facts_options
from nearcase.cli.options import connected, console, frame_option, json_option, print_json, server_option
from nearcase.cli.query import read_query
from nearcase.decide.changes import Change, compare
from nearcase.decide.record import Record, read_record
from nearcase.decide.record import replay as replay_record
from nearcase.decide.record_file import MAX_BYTES
from nearcase.errors import InvalidInput
from nearcase.report.text import plain

RECORD_ID = re.compile(r"[0-9a-f]{64}")


@click.command()
@click.argument("record")
@click.option(
    "--image",
    "paths",
    multiple=True,
    metavar="FILE|FOLDER",
    type=click.Path(exists=True, path_type=Path),
    help="The file that was decided about, or the folder; may be repeated. With it, or one of the next three, the "
    "server is asked again, and what changed since is told.",
)
@click.option("--case", "case_id", default="", metavar="ID", help="The case of the library that was decided about.")
@click.option("--series", "series_uid", default="", metavar="UID", help="The series of the library, likewise.")
@click.option("--study", "study_uid", default="", metavar="UID", help="The study of the library, likewise.")
@click.option("--filter", "where", default="", help="The filter of the evidence, where the record does not keep it.")
@frame_option
@facts_options
@json_option
@server_option
def replay(
    record: str,
    paths: tuple[Path, ...],
    case_id: str,
    series_uid: str,
    study_uid: str,
    where: str,
    frame: int | None,
    as_json: bool,
    server: str,
) -> None:
    """Make a recorded decision again, bit for bit, from RECORD alone: a file, or the id of a record on the server.

    A record that was edited is refused: what seals it is its id, so that a file is compared with the id in its name,
    where it has one; keep the id beside the decision. With --image, --case, --series or --study the same question is
    asked of today's library, and what became of it is told: causes first, then the cases, then the call.

    The record knows how it was asked: frames, operating point, k, filter. It does not know what names a person: the
    files, the ids, and what was given with --patient, --age and the like have to be given again.
    """
    kept = read_record(_bytes(record, server))
    _check_id(kept, record)
    decision = replay_record(kept)
    changes: tuple[Change, ...] | None = None
    if paths or case_id or series_uid or study_uid:
        facts = facts_given()
        asked = read_query(paths, frame, case_id, series_uid, study_uid, most=MAX_FILES, facts=facts)
        query = check_query(kept, asked, facts, where)
        with connected(server) as client:
            changes = compare(kept, ask_again(client, kept, query, facts, where))
    if as_json:
        print_json(_to_json(decision_json(decision), changes))
        return
    out = console()
    out.print("The record is whole, and gives the same decision again:")
    print_decision(out, decision)
    if changes is not None:
        _print_changes(changes)


def _bytes(record: str, server: str) -> bytes:
    path = Path(record)
    if RECORD_ID.fullmatch(record) and not path.exists():
        with connected(server) as client:
            return client.record(record)
    try:
        with path.open("rb") as stream:
            return stream.read(MAX_BYTES + 1)  # what is longer is no record, and may have no end
    except OSError as error:
        raise InvalidInput(f"the record can not be read: {error.strerror}", reason="UNREADABLE_FILE") from None


def _check_id(kept: Record, record: str) -> None:
    """An edited file can be sealed anew, and has another id then."""
    named = Path(record).stem
    if RECORD_ID.fullmatch(named) and named != kept.record_id:
        message = f"expected the record {named[:16]}..., got one that was edited and sealed anew"
        raise InvalidInput(message, reason="RECORD_INVALID")


def _print_changes(changes: tuple[Change, ...]) -> None:
    out = console()
    if not any(change.what != "program" for change in changes):
        out.print("Today's library gives the same.")
    table = Table("what changed", "was", "now", box=None, pad_edge=False)
    for change in changes:
        table.add_row(*(plain(text) for text in (change.what, change.was, change.now)))
    if changes:
        out.print(table)


def _to_json(decision: dict[str, Any], changes: tuple[Change, ...] | None) -> dict[str, Any]:
    return {"decision": decision, "changes": None if changes is None else [asdict(change) for change in changes]}
