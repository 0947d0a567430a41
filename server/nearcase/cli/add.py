"""nearcase add."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import click

from nearcase.cli.exits import exit_code
from nearcase.cli.labels import LabelTable, read_labels
from nearcase.cli.options import connected, json_option, print_json, progress, server_option, shown
from nearcase.client import AddItem, AddResult
from nearcase.errors import InvalidInput


@click.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option(
    "--labels",
    "labels_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="CSV with a column 'image' (file names), 'label_NAME' columns, and facts that files do not state.",
)
@click.option("--source", default="", help="Where the images come from, in words; shown beside each hit.")
@json_option
@server_option
def add(paths: tuple[Path, ...], labels_file: Path | None, source: str, as_json: bool, server: str) -> None:
    """Add DICOM, NIfTI, PNG or JPEG files, and all files below folders, to the library.

    Each image is durable when its result is counted. Adding again is safe: what is there already is "unchanged", and
    labels, facts and source that were given before are kept unless new ones are given ("replaced"). Files that are
    refused are named with the reason, and the others are added; the exit code is then 2, or 1 where the server or
    the machine was at fault.
    """
    files = list(dict.fromkeys(find_files(paths)))
    if not files:
        raise InvalidInput("found no files to add")
    table = read_labels(labels_file) if labels_file else LabelTable({}, ())
    items = [to_item(file, table, source) for file in files]
    results = add_with_progress(server, items)
    _report(files, results, table, as_json)
    codes = {exit_code(result.error) for result in results if result.error}
    if codes:
        raise SystemExit(min(codes))


def find_files(paths: tuple[Path, ...]) -> Iterator[Path]:
    """Yields files in a stable order; hidden files below folders, and DICOMDIR, are left out."""
    for path in paths:
        if path.is_file():
            yield path
            continue
        for file in sorted(path.rglob("*")):
            hidden = any(part.startswith(".") for part in file.relative_to(path).parts)
            if file.is_file() and not hidden and file.name != "DICOMDIR":
                yield file


def request_id_of(file: Path) -> str:
    """Returns the same id for the same path in every run, so that a large file is resumed; any path has one."""
    return hashlib.sha256(os.fsencode(os.path.abspath(file))).hexdigest()[:32]


def to_item(file: Path, table: LabelTable, source: str) -> AddItem:
    """Returns the item for a file."""
    row, request_id = table.row(file), request_id_of(file)
    if row is None:
        return AddItem(request_id, file, source=source)
    return AddItem(request_id, file, row.labels, row.facts, row.source or source)


def add_with_progress(server: str, items: list[AddItem]) -> list[AddResult]:
    """Returns the results in the order of the items."""
    by_id: dict[str, AddResult] = {}
    with connected(server) as client, progress("adding", len(items)) as advance:
        for result in client.add(items):
            by_id.setdefault(result.request_id, result)
            advance()
    return [by_id[item.request_id] for item in items if item.request_id in by_id]


def _report(files: list[Path], results: list[AddResult], table: LabelTable, as_json: bool) -> None:
    names = {request_id_of(file): file for file in files}
    counts = Counter(result.outcome or "refused" for result in results)
    if as_json:
        print_json({"counts": dict(counts), "results": [_row(names[result.request_id], result) for result in results]})
        return
    for result in results:
        if result.error:
            click.echo(f"refused {shown(names[result.request_id])}: {result.error}", err=True)
    if table.ignored_columns:
        click.echo(f"columns without meaning here: {', '.join(table.ignored_columns)}", err=True)
    without = sum(table.row(file) is None for file in files) if table.rows else 0
    if without:
        click.echo(f"{without} of {len(files)} files have no row in the labels table", err=True)
    click.echo(", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items())))


def _row(file: Path, result: AddResult) -> dict[str, str]:
    if result.error:
        return {"file": shown(file), "reason": result.error.reason, "error": str(result.error)}
    return {"file": shown(file), "case_id": result.case_id, "outcome": result.outcome}
