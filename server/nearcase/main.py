"""The entry point of the `nearcase` command; the base install has no commands and says what to install."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Runs the command line."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # what grpc's core logs of a used port, we say in one line
    try:
        from nearcase.cli.app import run
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("nearcase"):
            raise  # a fault of ours, not a missing extra
        print(f"nearcase: {error.name} is not installed; run: pip install 'nearcase[server,cpu]'", file=sys.stderr)
        raise SystemExit(2) from None
    run()
