"""nearcase replay."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from nearcase.cli.decide import decision_json, print_decision
from nearcase.cli.options import connected, console, json_option, print_json, server_option
from nearcase.client import Client
from nearcase.decide.changes import Change, compare
from nearcase.decide.record import Record, read_record
from nearcase.decide.record import replay as replay_record
from nearcase.errors import InvalidInput
from nearcase.report.text import plain

RECORD_ID = re.compile(r"[0-9a-f]{64}")
_TARGET = re.compile(r"(target_sensitivity|target_specificity|cost_ratio)=(.+)")
_OPTIONS = {"target_sensitivity": "sensitivity", "target_specificity": "specificity", "cost_ratio": "cost_ratio"}


@click.command()
@click.argument("record")
@click.option(
    "--image",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The file that was decided about: ask the server again, and tell what changed since.",
)
@click.option(
    "--operating-point", default="", metavar="NAME", help="With --image, where the record's was one of a pair."
)
@click.option("--filter", "where", default="", help="With --image, the filter of the decision, which is not recorded.")
@json_option
@server_option
def replay(record: str, image: Path | None, operating_point: str, where: str, as_json: bool, server: str) -> None:
    """Make a recorded decision again, bit for bit, from RECORD alone: a file, or the id of a record on the server.

    A record that was edited is refused: what seals it is its id, so that a file is compared with the id in its name,
    where it has one; keep the id beside the decision. With --image the same question is asked of today's library, and
    what became of it is told: causes first, then the cases, then the call.
    """
    kept = read_record(_bytes(record, server))
    _check_id(kept, record)
    decision = replay_record(kept)
    changes: tuple[Change, ...] | None = None
    if image is not None:
        with connected(server) as client:
            changes = compare(kept, _again(client, kept, image, operating_point, where))
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
        return path.read_bytes()
    except OSError as error:
        raise InvalidInput(f"the record can not be read: {error.strerror}", reason="UNREADABLE_FILE") from None


def _check_id(kept: Record, record: str) -> None:
    """An edited file can be sealed anew, and has another id then."""
    named = Path(record).stem
    if RECORD_ID.fullmatch(named) and named != kept.record_id:
        message = f"expected the record {named[:16]}..., got one that was edited and sealed anew"
        raise InvalidInput(message, reason="RECORD_INVALID")


def _again(client: Client, kept: Record, image: Path, operating_point: str, where: str) -> Record:
    """Asks the same question today; the new decision has a record of its own."""
    basis = kept.basis
    if basis.is_narrowed and not where:
        raise InvalidInput("the decision was asked with a filter, which is not recorded; give it with --filter")
    chosen: dict[str, Any] = {"operating_point": operating_point} if operating_point else _choice(kept)
    result = client.decide(
        image, finding=basis.finding.name, prevalence=basis.prevalence, k=_k(client, kept), where=where, **chosen
    )
    return read_record(client.record(result.decisions[0].record_id))


def _k(client: Client, kept: Record) -> int:
    """Only where the caller had set it: the finding's own number must stay its own."""
    fit = kept.basis.fit
    return kept.basis.finding.scorer.k if fit is None or "scorer" in fit.changed else 0


def _choice(kept: Record) -> dict[str, Any]:
    selected = kept.basis.selected
    if selected is None:
        return {}
    if selected.rule_out is not None:
        raise InvalidInput("the decision was made at a pair of points; name it with --operating-point")
    if found := _TARGET.fullmatch(selected.point.name):
        return {_OPTIONS[found[1]]: float(found[2])}
    return {"operating_point": selected.point.name}


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
