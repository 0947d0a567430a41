"""nearcase audit: reading and checking the audit trail of a server, from its folder alone."""

from __future__ import annotations

import dataclasses
import os
import socket
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from nearcase.audit.chain import check_key
from nearcase.audit.dicom_messages import messages_of
from nearcase.audit.event import dumped, event_to_json
from nearcase.audit.key import AuditKey, default_key_file, read_key
from nearcase.audit.line import Kept
from nearcase.audit.query import Wanted, records_in
from nearcase.audit.verify import Verified, verify
from nearcase.cli.exits import FAULT
from nearcase.cli.options import console, json_option, print_json
from nearcase.errors import InvalidInput
from nearcase.report.text import plain
from nearcase.retrieve.cases import patient_key
from nearcase.settings import Settings

_folder = click.argument(
    "folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=Settings().audit_trail_folder,
    metavar="[FOLDER]",
)
_key = click.option(
    "--key",
    "key_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File of the trail's secret; default FOLDER.key, where a server makes it.",
)


@click.group()
def audit() -> None:
    """Check, search and export the audit trail: who asked what, and which cases were shown.

    FOLDER is the trail's, `audit` in the data folder where no setting says otherwise. No server is needed, and one may
    be running.
    """


@audit.command("verify")
@_folder
@_key
@click.option("--no-key", is_flag=True, help="Check without the secret: who wrote the whole chain anew is not found.")
@click.option(
    "--last", metavar="NUMBER:SHA256", help="A record that was the last once, as verify told it: it must be there."
)
@json_option
def verify_trail(folder: Path, key_file: Path | None, no_key: bool, last: str | None, as_json: bool) -> None:
    """Find records that were changed, moved or taken away; exit code 1 where there are any.

    Keep the number and the SHA-256 of the last record on another machine: with --last they show a trail that was
    replaced as a whole by an older copy of itself, which nothing inside it can.
    """
    key = None if no_key else read_key(key_file or default_key_file(folder))
    found = verify(folder, key, _witness(last) if last else None)
    if as_json:
        print_json(dataclasses.asdict(found) | {"sound": found.is_sound})
    else:
        _print(found)
    if not found.is_sound:
        sys.exit(FAULT)


_TIMES = "UTC unless it says its offset: 2026-11-01, 2026-11-01T08:30, 2026-11-01T08:30:00+01:00."


def _seconds(context: click.Context, option: click.Parameter, text: str | None) -> float | None:
    """A date is its first moment."""
    if text is None:
        return None
    try:
        when = datetime.fromisoformat(text.strip())
    except ValueError:
        message = f"expected --{option.name} as 2026-11-01 or 2026-11-01T08:30:00+01:00, got {text[:40]!a}"
        raise InvalidInput(message, field=str(option.name)) from None
    return when.replace(tzinfo=when.tzinfo or UTC).timestamp()


def _search_options(command: Any) -> Any:
    options = (
        click.option("--since", metavar="TIME", callback=_seconds, help=f"From this time on, {_TIMES}"),
        click.option("--until", metavar="TIME", callback=_seconds, help=f"Before this time, {_TIMES}"),
        click.option("--caller", default="", help="Who asked."),
        click.option("--tenant", default="", help="For whom; names of cases and patients are each tenant's."),
        click.option("--rpc", default="", help="The call, or a part of its name: Decide."),
        click.option("--code", default="", help="How it ended: OK, PERMISSION_DENIED ..."),
        click.option("--kind", default="", help="call, refused, erased, start, stop, full ..."),
        click.option("--request-id", default="", help="As the trailer nearcase-request-id of an answer has it."),
        click.option(
            "--case", "case_id", default="", help="A case that was shown, added, changed, or erased by its id."
        ),
        click.option("--patient", default="", metavar="ID", help="A patient, asked with or shown."),
        click.option("--issuer", default="", help="With --patient, who gave the id."),
        click.option("--study", default="", metavar="UID", help="A study that was asked with, or erased."),
        click.option("--image", default="", metavar="SHA256", help="A file that was asked with."),
    )
    for option in reversed(options):
        command = option(command)
    return command


@audit.command("search")
@_folder
@_key
@_search_options
@json_option
def search_trail(folder: Path, key_file: Path | None, as_json: bool, **given: Any) -> None:
    """List the records of a caller, a case, a patient, a call, or a time."""
    found = list(_found(folder, key_file, given))
    if as_json:
        print_json([_to_json(kept) for kept in found])
        return
    table = Table("number", "time (UTC)", "what", "who", "outcome", "cases", "says", box=None, pad_edge=False)
    for kept in found:
        table.add_row(*(plain(cell) for cell in _cells(kept)))
    console().print(table)


@audit.command("export")
@_folder
@_key
@_search_options
@click.option("--dicom", is_flag=True, help="As DICOM audit messages (PS3.15 A.5): XML, one message a line.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="File for it; default stdout.")
@json_option
def export_trail(
    folder: Path, key_file: Path | None, dicom: bool, out: Path | None, as_json: bool, **given: Any
) -> None:
    """Write records for other programs, one a line, as JSON."""
    lines = _lines(_found(folder, key_file, given), dicom=dicom)
    if out is None:
        for line in lines:
            click.echo(line)
        return
    with open(out, "xb", opener=_for_owner) as file:
        count = sum(bool(file.write(line + b"\n")) for line in lines)
    if as_json:
        print_json({"lines": count, "file": str(out)})
    else:
        click.echo(f"{count} lines in {out}")


def _for_owner(path: str, flags: int) -> int:
    """Who asked is in it, and the folder that it is from is for its owner alone."""
    return os.open(path, flags, 0o600)


def _lines(found: Iterator[Kept], *, dicom: bool) -> Iterator[bytes]:
    for kept in found:
        if dicom:
            yield from messages_of(kept, socket.gethostname())
        else:
            yield dumped(_to_json(kept))


def _found(folder: Path, key_file: Path | None, given: dict[str, Any]) -> Iterator[Kept]:
    if given["since"] is not None and given["until"] is not None and given["since"] >= given["until"]:
        raise InvalidInput("expected --since before --until, got no time between them")
    names = _names(folder, key_file, given)
    plain_words = {name: given[name] for name in ("caller", "tenant", "rpc", "code", "kind", "request_id")}
    wanted = Wanted(since_s=given["since"], until_s=given["until"], names=names, **plain_words)
    return (kept for kept in records_in(folder) if wanted.takes(kept))


def _names(folder: Path, key_file: Path | None, given: dict[str, Any]) -> tuple[str, ...]:
    """The secret is only needed to know what a case or a patient is called."""
    asked = {
        "case": given["case_id"],
        "patient": patient_key(given["patient"], given["issuer"]),
        "study": given["study"],
        "image": given["image"],
    }
    if not any(asked.values()):
        return ()
    if sum(map(bool, asked.values())) > 1:
        raise InvalidInput("expected one of --case, --patient, --study and --image")
    key: AuditKey = read_key(key_file or default_key_file(folder))
    check_key(folder, key)  # names of another key would just not be there
    return tuple(key.named(given["tenant"], kind, value) for kind, value in asked.items() if value)


def _to_json(kept: Kept) -> dict[str, Any]:
    return {"seq": kept.seq, "prev": kept.prev, "sha256": kept.sha256, **event_to_json(kept.event)}


def _cells(kept: Kept) -> tuple[str, ...]:
    event = kept.event
    what = event.rpc.rpartition("/")[2] or event.kind
    says = [f"{said.finding}: {said.call} {said.reason or said.operating_point}".strip() for said in event.decisions]
    return (
        str(kept.seq),
        _time(event.at_s),
        f"{what} ({event.phase})" if event.phase not in ("", "end") else what,
        "@".join(part for part in (event.caller, event.tenant) if part),
        f"{event.code} {event.reason}".strip(),
        str(event.count) if event.count else "",
        "; ".join([*says, event.detail] if event.detail else says),
    )


def _print(found: Verified) -> None:
    out = console()
    if found.first_at_s is not None and found.last_at_s is not None:
        span = f"{_time(found.first_at_s)} to {_time(found.last_at_s)}"
        out.print(f"{found.records} records in {found.files} files, {span}", markup=False)
    for fault in found.faults:
        place = f"{fault.file}:{fault.line}: " if fault.file else ""
        which = f" (record {fault.seq})" if fault.seq else ""
        out.print(f"WRONG  {place}{fault.what}{which}", markup=False)
    for note in found.notes:
        out.print(f"note   {note}", markup=False)
    if not found.are_seals_checked:
        out.print("note   seals were not checked: without the secret anyone could have written this", markup=False)
    if found.is_sound:
        out.print(f"The trail is whole. Last record {found.last_seq}:{found.last_sha256}", markup=False)


def _witness(text: str) -> tuple[int, str]:
    number, _, sha256 = text.partition(":")
    if not (number.isascii() and number.isdecimal() and len(sha256) == 64):
        raise InvalidInput("expected --last NUMBER:SHA256 as verify told it, got other text")
    return int(number), sha256


def _time(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%d %H:%M:%S")
