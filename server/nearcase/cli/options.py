"""Options that several commands share, and how they print."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from nearcase.client import DEFAULT_ADDRESS, Client
from nearcase.intake.presets import CT_WINDOWS

F = TypeVar("F", bound=Callable[..., Any])

server_option = click.option(
    "--server",
    default=DEFAULT_ADDRESS,
    show_default=True,
    envvar="NEARCASE_SERVER",
    metavar="HOST:PORT",
    help="The running nearcase server.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
frame_option = click.option(
    "--frame",
    type=click.IntRange(1),
    default=None,
    help="Frame of a multi-frame image, from 1; default the middle one.",
)
window_option = click.option(
    "--window",
    default="first",
    show_default=True,
    metavar="WINDOW",
    help="Grey values to show: first (what the file says), 2 (its second window), -600/1500 (center/width), or for CT: "
    f"{', '.join(CT_WINDOWS)}.",
)
encoder_option = click.option(
    "--encoder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=None,
    help="Folder of an encoder; default the general-purpose one that nearcase ships.",
)
file_argument = click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
path_argument = click.argument("path", metavar="FILE|FOLDER", type=click.Path(exists=True, path_type=Path))


@contextmanager
def connected(server: str) -> Iterator[Client]:
    """A client of a server that may be starting; it gets a few seconds."""
    with Client(server) as client:
        client.wait_ready()
        yield client


@contextmanager
def progress(word: str, total: int) -> Iterator[Callable[[], None]]:
    """Shows a bar on a terminal while something longer runs; what is yielded moves it on by one."""
    columns = (TextColumn(word), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = progress_console()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=total)
        yield lambda: bar.advance(task)


def shown(path: Path) -> str:
    """Returns a path as text that any terminal and any file takes; bytes outside UTF-8 are shown as escapes."""
    return str(path).encode("utf-8", "backslashreplace").decode()


def print_json(value: object) -> None:
    """Prints one JSON document; NaN is not JSON and never printed."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))


def console() -> Console:
    """Returns where tables go; wide when piped, so that lines stay whole."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else 160)


def progress_console() -> Console:
    """Returns where progress bars go: stderr, so that output can be piped."""
    return Console(file=sys.stderr, highlight=False)
