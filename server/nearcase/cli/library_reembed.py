"""nearcase library reembed."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import click
from rich.table import Table

from nearcase.cli.options import connected, console, json_option, print_json, server_option, steps
from nearcase.errors import InvalidInput, Unsupported
from nearcase.settings import Settings
from nearcase.settings_file import read_settings

MOST_NAMED = 20


@click.command()
@click.option("--encoder", type=click.Path(exists=True, file_okay=False, path_type=Path), help="The new encoder.")
@click.option(
    "--images",
    multiple=True,
    type=click.Path(exists=True, path_type=Path),
    help="Folder or file with the images that the library was made from; may be given several times.",
)
@click.option("--data", type=click.Path(path_type=Path), help="Data folder of the server.  [default: nearcase-data]")
@click.option("--settings", "file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="TOML file.")
@click.option("--sample", type=click.IntRange(10), default=1000, show_default=True, help="Queries of the comparison.")
@click.option("--accept", "digest", default="", metavar="DIGEST", help="Switch to the library that was reported.")
@click.option("--without-lost", is_flag=True, help="Accept though cases have no new embedding.")
@json_option
@server_option
def reembed(
    encoder: Path | None,
    images: tuple[Path, ...],
    data: Path | None,
    file: Path | None,
    sample: int,
    digest: str,
    without_lost: bool,
    as_json: bool,
    server: str,
) -> None:
    """Build a second library with a new encoder beside the first, compare the two, and switch when that is accepted.

    A library keeps no images, so name where they are. The server goes on serving; an interrupted build goes on when it
    is started again. Read the report, stop the server, then give its digest:

    \b
      nearcase library reembed --encoder NEW --images scans/ --data my-library
      nearcase library reembed --data my-library --accept DIGEST
    """
    settings = read_settings(file, data=data, encoder=encoder)
    if settings.index != "edge":
        raise Unsupported(f'expected a library in a folder, got index = "{settings.index}"', field="index")
    if settings.has_tenants:
        raise Unsupported("expected a library of one tenant; export those of each, and add their images to another")
    if digest:
        _accept(settings, digest, without_lost, as_json)
    elif encoder is None or not images:
        raise InvalidInput("name the new encoder with --encoder and the images with --images, or a report to --accept")
    else:
        _build(settings, images, sample, as_json, server)


def _build(settings: Settings, images: tuple[Path, ...], sample: int, as_json: bool, server: str) -> None:
    from nearcase.reembed.flow import Wish, reembed  # heavy imports, after the options were checked
    from nearcase.reembed.report import PAGE_NAME, write_report
    from nearcase.reembed.wording import sentences, tables
    from nearcase.report.tables_page import render_tables

    with connected(server) as client:
        report = asyncio.run(reembed(Wish(settings, images, sample), client.transfer, steps))
    digest = str(report.body()["digest"])
    told, figures = sentences(report, digest), tables(report)
    page = render_tables("The library with a new encoder", told, figures, generated_at=report.created)
    write_report(settings.data, report, page)
    if as_json:
        print_json(report.body())
        return
    for line in told:
        click.echo(line)
    for figure in figures:
        table = Table(*figure.columns, box=None, pad_edge=False, title=figure.caption, title_justify="left")
        for row in figure.rows:
            table.add_row(*row)
        console().print(table, markup=False)
    for case_id in report.built.missing[:MOST_NAMED]:
        click.echo(f"no file found for case {case_id}", err=True)
    if len(report.built.missing) > MOST_NAMED:
        click.echo(f"and for {len(report.built.missing) - MOST_NAMED} more; --json names all", err=True)
    click.echo(f"The report is {settings.data / PAGE_NAME}")


def _accept(settings: Settings, digest: str, without_lost: bool, as_json: bool) -> None:
    from nearcase.reembed.switching import accept

    done = asyncio.run(accept(settings.data, digest, without_lost=without_lost, now=datetime.now(UTC)))
    if as_json:
        print_json({"encoder_identity": done.encoder_identity, "kept": str(done.kept)})
        return
    click.echo(f"The library is of encoder {done.encoder_identity} now: start the server with that encoder.")
    click.echo(f"The old one is kept in {done.kept}; erasures do not reach it, so remove it when you need it no more.")
