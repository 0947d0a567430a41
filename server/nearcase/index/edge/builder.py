"""The child process that rewrites shards: points come in by the page, a finished folder is left behind.

    parent  -- stdin:  pages, each a list of points; then None -->  this process
    parent  <-- stdout: size, (outcome, (points, kind)) ----------  this process

Building a graph takes minutes and holds the GIL, so that it is not for the process that answers. Only points that live
are sent, so that nothing of deleted ones is in the new files. Run as `python -m nearcase.index.edge.builder`.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import shutil
import signal
import sys
from array import array
from pathlib import Path
from typing import BinaryIO

import qdrant_edge as engine

from nearcase.index.edge.engine import config, index_fields
from nearcase.index.edge.process import attempt, send, take_pipes
from nearcase.index.edge.roster import PLAIN, SEALED, sync
from nearcase.processors import BUILDING, give_way

_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of linux/prctl.h


def main() -> None:
    """Builds FOLDER of DIMENSION as KIND, from the command line."""
    folder, dimension, kind = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    give_way(BUILDING)
    if sys.platform == "linux":  # elsewhere it finishes its work for nobody, and ends
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    requests, replies = take_pipes()
    send(replies, attempt(lambda: _build(folder, dimension, kind, requests)))


def _build(folder: Path, dimension: int, kind: str, requests: BinaryIO) -> tuple[int, str]:
    shutil.rmtree(folder, ignore_errors=True)
    shard = engine.EdgeShard.create(str(folder), config(dimension, kind))
    index_fields(shard)
    while (page := pickle.load(requests)) is not None:  # noqa: S301  our own parent, by a private pipe
        points = [engine.Point(name, array("f", vector).tolist(), payload) for name, vector, payload in page]
        shard.update(engine.UpdateOperation.upsert_points(points))
    shard.flush()
    if kind == SEALED:
        shard.optimize()
        shard.flush()
    made = shard.info()
    shard.close()
    _sync_all(folder)
    whole = kind == SEALED and made.indexed_vectors_count >= made.points_count
    return made.points_count, SEALED if whole else PLAIN


def _sync_all(folder: Path) -> None:
    for place, _, files in os.walk(folder):
        for name in files:
            descriptor = os.open(os.path.join(place, name), os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
        sync(Path(place))


if __name__ == "__main__":
    main()
