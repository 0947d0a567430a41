"""nearcase library export."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nearcase import __version__
from nearcase.cli.options import connected, json_option, print_json, server_option, steps
from nearcase.exchange.arrow import require_pyarrow

if TYPE_CHECKING:
    from nearcase.exchange.manifest import Manifest


@click.command("export")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--where", default="", help='Which cases: "modality = CT and age >= 40"; default all.')
@json_option
@server_option
def export_library(folder: Path, where: str, as_json: bool, server: str) -> None:
    """Write cases with their embeddings to a folder of Parquet files, as docs/export.md describes it.

    FOLDER must be empty or absent; after an interruption, the same command goes on after the last whole part. The
    server goes on serving; where the library changed meanwhile, that is said, as new cases may be absent.
    """
    require_pyarrow()
    from nearcase.exchange.writing import export_folder  # needs pyarrow

    with connected(server) as client:
        identity = client.transfer.identity(where)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        with export_folder(folder, identity, where, now=now, version=__version__) as writer:
            done = writer.manifest.case_count
            cases = client.transfer.export(where, after_case_id=writer.after_case_id)
            with steps("exporting", identity.case_count, done) as advance:
                for count in writer.write(cases):
                    advance(count)
            whole = writer.finish(client.transfer.identity(where).snapshot)
    _report(whole, folder, as_json)


def _report(whole: Manifest, folder: Path, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "case_count": whole.case_count,
                "part_count": len(whole.parts),
                "size_bytes": sum(part.size_bytes for part in whole.parts),
                "snapshot": whole.snapshot_at_end,
                "changed_meanwhile": whole.changed_meanwhile,
            }
        )
        return
    click.echo(f"{whole.case_count} cases in {len(whole.parts)} parts in {folder}")
    if whole.changed_meanwhile:
        click.echo("the library changed meanwhile: cases that were added meanwhile may be absent", err=True)
