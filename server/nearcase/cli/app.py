"""The `nearcase` command: one group, one place where errors become one line and an exit code."""

from __future__ import annotations

import json
import sys

import click

from nearcase import __version__
from nearcase.cli.add import add
from nearcase.cli.audit import audit
from nearcase.cli.check import check
from nearcase.cli.decide import decide
from nearcase.cli.demo import demo
from nearcase.cli.embed import embed
from nearcase.cli.exits import BAD_INPUT, FAULT, exit_code
from nearcase.cli.inspect import inspect, render
from nearcase.cli.library import library
from nearcase.cli.replay import replay
from nearcase.cli.search import search
from nearcase.cli.serve import serve
from nearcase.cli.token import token
from nearcase.errors import NearcaseError


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="nearcase")
def group() -> None:
    """Find the prior cases that look like this one, and show them as evidence.

    \b
    A first session, in two terminals:
      nearcase serve --data my-library
      nearcase add scans/ --labels outcomes.csv
      nearcase search film.dcm -k 5 --filter "modality = DX and age >= 40" --report evidence.html

    Not a medical device. The default encoder is general-purpose (ImageNet), not medical, not validated for diagnosis.
    """


for command in (serve, add, search, decide, replay, inspect, render, embed, library, audit, check, token, demo):
    group.add_command(command)


def run(arguments: list[str] | None = None) -> None:
    """Runs the command line and exits; with --json a refusal is an object on stdout too."""
    try:
        group.main(args=arguments, prog_name="nearcase", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        _tell_machines(arguments, "USAGE", error.format_message())
        code = error.exit_code
    except click.Abort:
        print("nearcase: interrupted", file=sys.stderr)
        code = 130
    except NearcaseError as error:
        print(f"nearcase: {error}", file=sys.stderr)
        _tell_machines(arguments, error.reason, str(error))
        code = exit_code(error)
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output has gone; Python must not complain about it at exit
        code = FAULT
    except OSError as error:
        print(f"nearcase: {error.filename or ''}: {error.strerror}".replace(": :", ":"), file=sys.stderr)
        code = BAD_INPUT if isinstance(error, FileNotFoundError) else FAULT
    else:
        code = 0
    sys.exit(code)


def _tell_machines(arguments: list[str] | None, reason: str, message: str) -> None:
    """Prints what docs/inspect.schema.json calls a refusal, on one line, where JSON was asked for."""
    if "--json" in (sys.argv[1:] if arguments is None else arguments):
        print(json.dumps({"error": {"reason": reason, "message": " ".join(message.split())}}, ensure_ascii=False))
