"""nearcase add."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from pathlib import Path

import click

from nearcase.cli.exits import BAD_INPUT, exit_code
from nearcase.cli.files import find_files
from nearcase.cli.labels import LabelTable, read_labels
from nearcase.cli.options import connected, json_option, print_json, progress, server_option, shown
from nearcase.cli.series import group_series, read_items
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
@click.option(
    "--as",
    "kind",
    type=click.Choice(["images", "series"]),
    default="images",
    show_default=True,
    help="What a case is: each file an image; or each series one case, for a server whose encoder takes 3D series.",
)
@click.option("--source", default="", help="Where the images come from, in words; shown beside each hit.")
@json_option
@server_option
def add(paths: tuple[Path, ...], labels_file: Path | None, kind: str, source: str, as_json: bool, server: str) -> None:
    """Add DICOM, NIfTI, PNG or JPEG files, and all files below folders, to the library.

    Each image is durable when its result is counted. Adding again is safe: what is there already is "unchanged", and
    labels, facts and source that were given before are kept unless new ones are given ("replaced"). Files that are
    refused are named with the reason, and the others are added; the exit code is then 2, or 1 where the server or
    the machine was at fault.

    With --as series the DICOM files below folders are grouped by series and each series is sent as one file; a NIfTI
    volume is a series by itself. A row of the labels table then names the series' folder or one of its files.
    """
    files = list(dict.fromkeys(find_files(paths)))
    if not files:
        raise InvalidInput("found no files to add")
    table = read_labels(labels_file) if labels_file else LabelTable({}, ())
    if kind == "series":
        results, names, refused = _add_series(server, files, table, source)
    else:
        names, refused = {request_id_of(file): file for file in files}, {}
        results = add_with_progress(server, [to_item(file, table, source) for file in files])
    _report(names, results, table, refused, as_json)
    codes = {exit_code(result.error) for result in results if result.error} | ({BAD_INPUT} if refused else set())
    if codes:
        raise SystemExit(min(codes))


def request_id_of(file: Path) -> str:
    """Returns the same id for the same path in every run, so that a large file is resumed; any path has one."""
    return hashlib.sha256(os.fsencode(os.path.abspath(file))).hexdigest()[:32]


def to_item(file: Path, table: LabelTable, source: str) -> AddItem:
    """Returns the item for a file."""
    row, request_id = table.row(file), request_id_of(file)
    if row is None:
        return AddItem(request_id, file, source=source)
    return AddItem(request_id, file, row.labels, row.facts, row.source or source)


def _add_series(
    server: str, files: list[Path], table: LabelTable, source: str
) -> tuple[list[AddResult], dict[str, Path], dict[str, int]]:
    """Returns the results, what people call each series, and why some files are of none."""
    series, refused = group_series(files)
    results: list[AddResult] = []
    with connected(server) as client, progress("adding", len(series)) as advance:
        for result in client.add(read_items(series, table, source, refused)):
            results.append(result)
            advance()
    return results, {each.request_id: each.name for each in series}, refused


def add_with_progress(server: str, items: list[AddItem]) -> list[AddResult]:
    """Returns the results in the order of the items."""
    by_id: dict[str, AddResult] = {}
    with connected(server) as client, progress("adding", len(items)) as advance:
        for result in client.add(items):
            by_id.setdefault(result.request_id, result)
            advance()
    return [by_id[item.request_id] for item in items if item.request_id in by_id]


def _report(
    names: dict[str, Path], results: list[AddResult], table: LabelTable, left_out: dict[str, int], as_json: bool
) -> None:
    counts = Counter(result.outcome or "refused" for result in results)
    if as_json:
        rows = [_row(names[result.request_id], result) for result in results]
        print_json({"counts": dict(counts), "results": rows, **({"left_out": left_out} if left_out else {})})
        return
    for reason, count in left_out.items():
        click.echo(f"{count} file{'s' * (count > 1)} left out: {reason}", err=True)
    for result in results:
        if result.error:
            click.echo(f"refused {shown(names[result.request_id])}: {result.error}", err=True)
    if table.ignored_columns:
        click.echo(f"columns without meaning here: {', '.join(table.ignored_columns)}", err=True)
    without = sum(table.row(name) is None for name in names.values()) if table.rows else 0
    if without:
        click.echo(f"{without} of {len(names)} files have no row in the labels table", err=True)
    click.echo(", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items())))


def _row(file: Path, result: AddResult) -> dict[str, str]:
    if result.error:
        return {"file": shown(file), "reason": result.error.reason, "error": str(result.error)}
    return {"file": shown(file), "case_id": result.case_id, "outcome": result.outcome}
