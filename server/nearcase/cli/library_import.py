"""nearcase library import."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nearcase.cli.options import connected, json_option, print_json, server_option, steps
from nearcase.exchange.arrow import require_pyarrow
from nearcase.transfers import ImportCounts, LibraryIdentity, StoredCase

if TYPE_CHECKING:
    from nearcase.exchange.manifest import Manifest
    from nearcase.exchange.reading import ExportReader


@click.command("import")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--from-part", default="", help="Begin with this part; the default is the first.")
@json_option
@server_option
def import_library(folder: Path, from_part: str, as_json: bool, server: str) -> None:
    """Add the cases of an export to the library, with their embeddings, labels, flags and history.

    The library must be of the same encoder and pseudonym key. Importing again changes nothing, so an interrupted import
    is started again. A part or row that is not as it should be ends the import with its name; what was imported stays.
    Cases that were erased here after they were added there stay erased.
    """
    require_pyarrow()
    from nearcase.exchange.reading import open_export  # needs pyarrow

    with open_export(folder) as reader, connected(server) as client:
        manifest, counts, done = reader.manifest, ImportCounts(), 0
        with steps("importing", manifest.case_count, _skipped(manifest, from_part)) as advance:
            batches = _batches(reader, from_part)
            for count, answered in client.transfer.import_cases(_identity(manifest), batches):
                counts, done = counts + answered, done + count
                advance(count)
    _report(counts, as_json)


def _batches(reader: ExportReader, from_part: str) -> Iterator[tuple[StoredCase, ...]]:
    for rows in reader.rows(from_part=from_part):
        yield rows.cases


def _identity(manifest: Manifest) -> LibraryIdentity:
    words = (manifest.encoder_identity, manifest.dimension, manifest.pseudonym_check)
    return LibraryIdentity(*words, manifest.snapshot_at_end, manifest.case_count)


def _skipped(manifest: Manifest, from_part: str) -> int:
    names = [part.name for part in manifest.parts]
    before = names.index(from_part) if from_part in names else 0
    return sum(part.row_count for part in manifest.parts[:before])


def _report(counts: ImportCounts, as_json: bool) -> None:
    if as_json:
        print_json(dataclasses.asdict(counts))
        return
    told = {name: count for name, count in dataclasses.asdict(counts).items() if count}
    click.echo(", ".join(f"{count} {name}" for name, count in told.items()) or "no cases in this export")
