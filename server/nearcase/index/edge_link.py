"""The parent's end of one index process: start it, ask it, end it."""

from __future__ import annotations

import os
import pickle
import select
import subprocess
import sys
from pathlib import Path
from typing import Any

ANSWER_LIMIT_S = 120.0
"""A call or an opening that takes longer has hung: reopening 100 k points after `kill -9` takes 4 s."""


class LinkDown(Exception):
    """The process ended, or did not answer in time."""


class IndexProcess:
    """A running `edge_process`; used by one thread, except that any thread may `kill`."""

    def __init__(self, folder: Path, dimension: int) -> None:
        """Starts the process; `answer` once tells whether it opened the library."""
        # -P keeps the working directory off the import path: a server may be started anywhere.
        command = [sys.executable, "-P", "-m", "nearcase.index.edge_process"]
        self._process = subprocess.Popen(  # noqa: S603  our own module in our own interpreter
            [*command, str(folder), str(dimension), str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            process_group=0,  # Ctrl-C in a terminal goes to the group of the server alone
        )

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def ask(self, operation: str, arguments: tuple[object, ...]) -> tuple[str, Any]:
        """Returns (outcome, value) as `edge_process` defines them.

        Raises:
            LinkDown: There was no answer; whether the operation was done is not known.
        """
        assert self._process.stdin is not None  # noqa: S101  it is a pipe
        try:
            pickle.dump((operation, arguments), self._process.stdin, pickle.HIGHEST_PROTOCOL)
            self._process.stdin.flush()
        except (OSError, ValueError) as error:  # ValueError: the pipe was closed by `kill`
            raise LinkDown from error
        return self.answer()

    def answer(self) -> tuple[str, Any]:
        """Returns the next (outcome, value).

        Raises:
            LinkDown: The process ended or took longer than ANSWER_LIMIT_S.
        """
        assert self._process.stdout is not None  # noqa: S101  it is a pipe
        waiting = select.poll()
        waiting.register(self._process.stdout, select.POLLIN)
        if not waiting.poll(ANSWER_LIMIT_S * 1000):
            raise LinkDown
        try:
            reply: tuple[str, Any] = pickle.load(self._process.stdout)  # noqa: S301  our own process, by a private pipe
        except (EOFError, OSError, ValueError, pickle.UnpicklingError) as error:
            raise LinkDown from error
        return reply

    def kill(self) -> None:
        """Ends the process at once, which loses nothing that it acknowledged; unblocks a waiting `ask`."""
        self._process.kill()

    def release(self) -> None:
        """Waits for the process to be gone and closes the pipes."""
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            try:
                if pipe is not None:
                    pipe.close()
            except BrokenPipeError:
                pass  # a request that it never read
