"""The parent's end of its child processes: start them, talk to them, end them."""

from __future__ import annotations

import io
import os
import pickle
import select
import subprocess
import sys
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

ANSWER_LIMIT_S = 120.0
"""A write or an opening that takes longer has hung: reopening 100 k points after `kill -9` takes 4 s."""

READ_LIMIT_S = 15.0
"""A read of a small library that takes longer has hung; of 1024 numbers each, 100 k are scored in 15 ms."""

POINTS_READ_PER_S = 50_000
"""What a read may take longer for every point: a slow disk that has to be read whole."""

BUILD_LIMIT_S = 2 * 3600.0
"""A build that takes longer has hung: of 50 k x 1024 it took 5 min on a machine five times overloaded."""

PIPE_BYTES = 65_536
"""What a pipe of Linux holds, and so the most that one reading brings."""

HEADER_BYTES = 8
"""Before each answer: how many bytes of pickle follow, as a little-endian number."""


class LinkDown(Exception):
    """The process ended, or did not answer in time."""


class Link:
    """A running child; used by one thread, except that any thread may `kill`."""

    def __init__(self, module: str, *arguments: str) -> None:
        """Starts the process."""
        # -P keeps the working directory off the import path: a server may be started anywhere.
        self._process = subprocess.Popen(  # noqa: S603  our own module in our own interpreter
            [sys.executable, "-P", "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            process_group=0,  # Ctrl-C in a terminal goes to the group of the server alone
            bufsize=0,  # what is in a buffer of ours, poll does not see
        )
        requests, replies = self._process.stdin, self._process.stdout
        assert isinstance(requests, io.FileIO)  # noqa: S101  unbuffered pipes are
        assert isinstance(replies, io.FileIO)  # noqa: S101
        self._requests, self._replies = requests, replies
        self._answering = select.poll()
        self._answering.register(replies, select.POLLIN)
        self._ahead = bytearray()  # was read, and belongs to what follows

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def answer(self, limit_s: float) -> tuple[str, Any]:
        """Returns the next (outcome, value).

        Raises:
            LinkDown: The process ended or took longer.
        """
        if not self._ahead and not self._answering.poll(limit_s * 1000):
            raise LinkDown
        try:
            size = int.from_bytes(self._read(HEADER_BYTES), "little")
            reply: tuple[str, Any] = pickle.loads(self._read(size))  # noqa: S301  our own process, by a private pipe
        except (OSError, ValueError, pickle.UnpicklingError) as error:  # ValueError: closed by `release`
            raise LinkDown from error
        return reply

    def _read(self, size: int) -> bytearray:
        """Reads as much as there is, not only what is asked for: an answer mostly comes with one call."""
        while len(self._ahead) < size:
            found = self._replies.read(PIPE_BYTES)
            if not found:
                raise LinkDown
            self._ahead += found
        data = self._ahead[:size]
        del self._ahead[:size]
        return data

    def kill(self) -> None:
        """Ends the process at once, which loses nothing that it acknowledged; unblocks whoever waits for it."""
        self._process.kill()

    def release(self) -> None:
        """Waits for the process to be gone and closes the pipes."""
        self._process.wait()
        self._requests.close()
        self._replies.close()


class IndexProcess(Link):
    """A running `edge.process`."""

    def __init__(self, folder: Path, dimension: int, exact_candidates: int, hopeless: Collection[str] = ()) -> None:
        """Starts the process; `answer` until it is not "loading" tells whether it opened the library."""
        numbers = [str(number) for number in (dimension, os.getpid(), exact_candidates)]
        super().__init__("nearcase.index.edge.process", str(folder), *numbers, *hopeless)

    def ask(self, operation: str, arguments: tuple[object, ...], limit_s: float) -> tuple[str, Any]:
        """Returns (outcome, value) as `edge.process` defines them.

        Raises:
            LinkDown: There was no answer in time; whether the operation was done is not known.
        """
        rest = memoryview(pickle.dumps((operation, arguments), pickle.HIGHEST_PROTOCOL))
        try:
            while rest:
                rest = rest[self._requests.write(rest) :]
        except (OSError, ValueError) as error:  # ValueError: the pipe was closed by `kill`
            raise LinkDown from error
        return self.answer(limit_s)


class BuilderProcess(Link):
    """A running `edge.builder`."""

    def __init__(self, folder: Path, dimension: int, kind: str) -> None:
        """Starts to build the folder."""
        super().__init__("nearcase.index.edge.builder", str(folder), str(dimension), kind)
        os.set_blocking(self._requests.fileno(), False)

    def send(self, page: bytes) -> None:
        """Sends pickled points, as fast as the process takes them.

        Raises:
            LinkDown: The process ended or hangs.
        """
        waiting = select.poll()
        waiting.register(self._requests, select.POLLOUT)
        rest, until = memoryview(page), time.monotonic() + ANSWER_LIMIT_S
        while rest:
            if not waiting.poll(max(0.0, until - time.monotonic()) * 1000):
                raise LinkDown
            try:
                rest = rest[self._requests.write(rest) or 0 :]  # None: another moment
            except (OSError, ValueError) as error:
                raise LinkDown from error

    def finish(self) -> tuple[str, Any]:
        """Returns the outcome and (points, kind), when the folder is complete and on the disk.

        Raises:
            LinkDown: The process ended or hangs.
        """
        self.send(pickle.dumps(None))
        return self.answer(BUILD_LIMIT_S)
