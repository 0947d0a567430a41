"""The child process that owns the engine: takes the lock, opens the shards, answers one request after the other.

    parent  -- stdin:  (operation, arguments) -->  this process
    parent  <-- stdout: size, (outcome, value) --  this process

Before the first answer it names each shard that it is about to load, so that the parent knows which one killed it.

The engine holds the GIL during every call, which would freeze a server; here it freezes nobody. End of input means that
the parent is gone, however it ended, and ends this process too. Run as `python -m nearcase.index.edge.process`.
"""

from __future__ import annotations

import gc
import os
import pickle
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from nearcase.index.edge.journal import journalled
from nearcase.index.edge.opening import opened
from nearcase.index.edge.shards import Damaged, JobLost, Shards
from nearcase.index.lock import ENGINE, FolderLock

DONE, REFUSED, FAILED = "done", "refused", "failed"
"""Outcomes: an answer; a request that can not be; an engine, disk or lock that did not do it."""

LOADING, DAMAGED, LOST = "loading", "damaged", "lost"
"""Outcomes: a shard is about to be loaded; a damaged part stands in the way; a rewriting can not go on."""

CLOSE = "close"
"""The operation after which the process ends."""


def main() -> None:
    """Serves FOLDER DIMENSION OWNER_PID EXACT_CANDIDATES [HOPELESS_SHARD ...] until "close" or end of input."""
    folder, dimension, owner_pid, exact_candidates = Path(sys.argv[1]), *(int(word) for word in sys.argv[2:5])
    # Ctrl-C and a supervisor's stop reach every process of the group; the parent drains first and then closes us.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    requests, replies = take_pipes()
    lock = FolderLock(folder, ENGINE)
    shards: list[Shards] = []

    def start() -> None:
        _lock(lock, owner_pid)
        tell = lambda name: send(replies, (LOADING, name))  # noqa: E731
        found = opened(folder, dimension, exact_candidates, sys.argv[5:], tell)
        for points in journalled(folder):
            found.upsert(points)
        shards.append(found)

    outcome, value = attempt(start)
    send(replies, (outcome, shards[0].count(None) if shards else value))
    if outcome == DONE:
        gc.disable()  # requests make no cycles, and a search does not have to wait while they are looked for
        _serve(shards[0], requests, replies)


def _lock(lock: FolderLock, owner_pid: int) -> None:
    if not lock.take(owner_pid):
        raise BlockingIOError(lock.refusal())


def _serve(shards: Shards, requests: BinaryIO, replies: BinaryIO) -> None:
    operations: dict[str, Callable[..., object]] = {
        "upsert": shards.upsert,
        "flush": shards.flush,
        "search": shards.search,
        "get": shards.get,
        "scroll": shards.scroll,
        "count": shards.count,
        "facet": shards.facet,
        "delete": shards.delete,
        "erase": shards.erase,
        "freeze": shards.freeze,
        "parts": shards.parts,
        "begin": shards.begin,
        "page": shards.page,
        "swap": shards.swap,
        CLOSE: shards.close,
    }
    operation = ""
    while operation != CLOSE:
        try:
            operation, arguments = pickle.load(requests)  # noqa: S301  the parent's own words, by a private pipe
        except (EOFError, pickle.UnpicklingError):  # the parent ended, between two requests or within one
            operation, arguments = CLOSE, ()
        call = operations[operation]
        send(replies, attempt(lambda call=call, arguments=arguments: call(*arguments)))  # type: ignore[misc]


def attempt(call: Callable[[], object]) -> tuple[str, object]:
    """The one place where what the engine raises, mostly bare Exception, becomes an outcome in one line."""
    try:
        return DONE, call()
    except Damaged as error:
        return DAMAGED, _line(error)
    except JobLost as error:
        return LOST, _line(error)
    except (TypeError, ValueError, OverflowError) as error:
        return REFUSED, _line(error)
    except BaseException as error:  # a panic of the engine is no Exception
        return FAILED, _line(error)


def _line(error: BaseException) -> str:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    text = " ".join(reason.split()) or type(error).__name__
    return text.removeprefix("Service runtime error: ").rstrip(".")[:300]


def send(replies: BinaryIO, reply: tuple[str, object]) -> None:
    """Answers the parent; ends this process when there is none."""
    try:
        data = pickle.dumps(reply, pickle.HIGHEST_PROTOCOL)
        replies.write(len(data).to_bytes(8, "little"))
        replies.write(data)
        replies.flush()
    except BrokenPipeError:
        os._exit(0)  # nobody is left to answer; what was acknowledged was flushed before


def take_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Returns (requests, replies), for us alone: what a library prints goes to the error output."""
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return requests, replies


if __name__ == "__main__":
    main()
