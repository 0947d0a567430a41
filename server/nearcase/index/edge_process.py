"""The child process that owns the engine: takes the lock, opens the shard, answers one request after the other.

    parent  -- stdin:  (operation, arguments) -->  this process
    parent  <-- stdout: (outcome, value) --------  this process

The engine holds the GIL during every call, which would freeze a server; here it freezes nobody. End of input means that
the parent is gone, however it ended, and ends this process too. Run as `python -m nearcase.index.edge_process`.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from nearcase.index.edge_shard import Shard
from nearcase.index.lock import FolderLock

DONE, REFUSED, FAILED = "done", "refused", "failed"
"""Outcomes: an answer; a request that can not be; an engine, disk or lock that did not do it."""

CLOSE = "close"
"""The operation after which the process ends."""


def main() -> None:
    """Serves FOLDER DIMENSION OWNER_PID, from the command line, until "close" or end of input."""
    folder, dimension, owner_pid = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    # Ctrl-C and a supervisor's stop reach every process of the group; the parent drains first and then closes us.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    requests, replies = _take_pipes()
    lock = FolderLock(folder)
    shards: list[Shard] = []
    opened = _attempt(lambda: shards.append(_open(lock, folder, dimension, owner_pid)))
    _send(replies, opened)
    if opened[0] == DONE:
        _serve(shards[0], requests, replies)


def _open(lock: FolderLock, folder: Path, dimension: int, owner_pid: int) -> Shard:
    if not lock.take(owner_pid):
        raise BlockingIOError(
            f"another nearcase process ({lock.owner()}) has this library open; stop it or choose another --data folder"
        )
    return Shard(folder / "points", dimension)


def _serve(shard: Shard, requests: BinaryIO, replies: BinaryIO) -> None:
    operations: dict[str, Callable[..., object]] = {
        "upsert": shard.upsert,
        "search": shard.search,
        "get": shard.get,
        "scroll": shard.scroll,
        "count": shard.count,
        "facet": shard.facet,
        "delete": shard.delete,
        CLOSE: shard.close,
    }
    operation = ""
    while operation != CLOSE:
        try:
            operation, arguments = pickle.load(requests)  # noqa: S301  the parent's own words, by a private pipe
        except (EOFError, pickle.UnpicklingError):  # the parent ended, between two requests or within one
            operation, arguments = CLOSE, ()
        call = operations[operation]
        _send(replies, _attempt(lambda call=call, arguments=arguments: call(*arguments)))  # type: ignore[misc]


def _attempt(call: Callable[[], object]) -> tuple[str, object]:
    """The one place where what the engine raises, mostly bare Exception, becomes an outcome in one line."""
    try:
        return DONE, call()
    except (TypeError, ValueError, OverflowError) as error:
        return REFUSED, _line(error)
    except BaseException as error:  # a panic of the engine is no Exception
        return FAILED, _line(error)


def _line(error: BaseException) -> str:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    text = " ".join(reason.split()) or type(error).__name__
    return text.removeprefix("Service runtime error: ").rstrip(".")[:300]


def _send(replies: BinaryIO, reply: tuple[str, object]) -> None:
    try:
        pickle.dump(reply, replies, pickle.HIGHEST_PROTOCOL)
        replies.flush()
    except BrokenPipeError:
        os._exit(0)  # nobody is left to answer; what was acknowledged was flushed before


def _take_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Keeps both pipes for ourselves: what a library prints goes to the error output, not among the replies."""
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return requests, replies


if __name__ == "__main__":
    main()
