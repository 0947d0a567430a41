"""Options that several commands share, and how they print."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from nearcase.client import DEFAULT_ADDRESS, Client, Tls
from nearcase.intake.presets import CT_WINDOWS

F = TypeVar("F", bound=Callable[..., Any])

_UNPRINTED = re.compile(r"[^\n -~]")
_KEPT = "nearcase.connection."
SYSTEM = "system"


def _kept(name: str, *declarations: str, **attributes: Any) -> Callable[[F], F]:
    """An option that is kept for `client_of` and not handed to the command, so that no command can forget it."""

    def keep(context: click.Context, _: click.Parameter, value: object) -> None:
        context.meta[_KEPT + name] = value

    return click.option(*declarations, expose_value=False, callback=keep, **attributes)


_server = click.option(
    "--server",
    default=DEFAULT_ADDRESS,
    show_default=True,
    envvar="NEARCASE_SERVER",
    metavar="HOST:PORT",
    help="The running nearcase server.",
)
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_connection = (
    _kept(
        "tenant",
        "--tenant",
        default="",
        envvar="NEARCASE_TENANT",
        metavar="NAME",
        help="Whose cases, where the server takes the caller's word for it.",
    ),
    _kept(
        "token",
        "--token-file",
        type=_FILE,
        envvar="NEARCASE_TOKEN_FILE",
        help="File with the token that says who asks.",
    ),
    _kept(
        "ca",
        "--tls-ca",
        envvar="NEARCASE_CLIENT_CA",
        metavar="FILE|system",
        help="Encrypt; who signed the server's certificate (PEM), or the authorities of this machine.",
    ),
    _kept(
        "certificate",
        "--tls-cert",
        type=_FILE,
        envvar="NEARCASE_CLIENT_CERT",
        help="Our certificate (PEM), where the server asks for one.",
    ),
    _kept("key", "--tls-key", type=_FILE, envvar="NEARCASE_CLIENT_KEY", help="Its private key (PEM)."),
    _kept(
        "insecure", "--insecure", is_flag=True, help="Send the token to another machine though nothing is encrypted."
    ),
)


def connection_options(command: F) -> F:
    """Adds who asks and how the connection is encrypted; `client_of` takes them from there."""
    for option in reversed(_connection):
        command = option(command)
    return command


def server_option(command: F) -> F:
    """Adds --server, and what `connection_options` adds."""
    return _server(connection_options(command))


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
    with client_of(server) as client:
        client.wait_ready()
        yield client


def client_of(server: str, timeout_s: float = 60.0) -> Client:
    """Returns a client as the options of the command that runs say."""
    context = click.get_current_context(silent=True)
    given = {key.removeprefix(_KEPT): value for key, value in (context.meta if context else {}).items()}
    ca, certificate, key = given.get("ca"), given.get("certificate"), given.get("key")
    tls = Tls(None if ca in (None, SYSTEM) else Path(ca), certificate, key) if ca or certificate or key else None
    return Client(
        server,
        timeout_s=timeout_s,
        tenant=given.get("tenant", ""),
        tls=tls,
        token=given.get("token") or "",
        insecure=given.get("insecure", False),
    )


@contextmanager
def progress(word: str, total: int) -> Iterator[Callable[[], None]]:
    """Shows a bar on a terminal while something longer runs; what is yielded moves it on by one."""
    columns = (TextColumn(word), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = progress_console()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=total)
        yield lambda: bar.advance(task)


@contextmanager
def steps(word: str, total: int, done: int = 0) -> Iterator[Callable[[int], None]]:
    """Shows the same bar for work in steps of several; what is yielded moves it on by a count."""
    columns = (TextColumn(word), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = progress_console()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=total, completed=done)
        yield lambda count: bar.advance(task, count)


def shown(path: Path) -> str:
    """Returns a path as text that any terminal and any file takes; bytes outside UTF-8 are shown as escapes."""
    return str(path).encode("utf-8", "backslashreplace").decode()


def print_json(value: object) -> None:
    """Prints one JSON document; NaN is not JSON and never printed, and what moves a terminal is escaped."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    click.echo(_UNPRINTED.sub(lambda found: found[0] if found[0].isprintable() else json.dumps(found[0])[1:-1], text))


def console() -> Console:
    """Returns where tables go; wide when piped, so that lines stay whole."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else 160)


def progress_console() -> Console:
    """Returns where progress bars go: stderr, so that output can be piped."""
    return Console(file=sys.stderr, highlight=False)
