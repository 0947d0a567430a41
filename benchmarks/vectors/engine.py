"""The engine without nearcase, in this process, on the shards of a library: `python -m vectors.engine LIBRARY MADE`.

The same files, configuration and effort of search; it returns the same payload. What it leaves out is all that makes
searches a service: another process, gRPC, cases, counts of candidates.
"""

from __future__ import annotations

import heapq
import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import qdrant_edge

from nearcase.index.edge.engine import config
from nearcase.index.edge.filters import compiled
from nearcase.index.edge.roster import SEALED
from nearcase.index.edge.roster import read as read_roster
from nearcase.index.edge.shard import EFFORT
from nearcase.index.filter_text import parse
from nearcase.retrieve.cases import THUMBNAIL
from vectors.load import row_of
from vectors.made import FILTERS, Floats, Integers, K, Made, read
from vectors.peers import Measured, timed
from vectors.processes import disk_mib, memory

OVERSAMPLING = 2.0


@dataclass(frozen=True, slots=True)
class Open:
    """One shard."""

    shard: qdrant_edge.EdgeShard
    is_graph: bool

    def nearest(
        self, vector: list[float], where: qdrant_edge.Filter | None, exact: bool
    ) -> list[qdrant_edge.ScoredPoint]:
        """The K nearest, with their payload."""
        params = qdrant_edge.SearchParams(exact=True)
        if self.is_graph and not exact:
            rescore = qdrant_edge.QuantizationSearchParams(rescore=True, oversampling=OVERSAMPLING)
            params = qdrant_edge.SearchParams(hnsw_ef=EFFORT, quantization=rescore)
        return self.shard.query(
            qdrant_edge.QueryRequest(
                limit=K,
                query=qdrant_edge.Query.Nearest(vector),
                filter=where,
                params=params,
                with_payload=qdrant_edge.PayloadSelector.Exclude([THUMBNAIL]),
                with_vector=False,
            )
        )


def opened(library: Path, dimension: int) -> list[Open]:
    """All shards of the library."""
    folder = library / "shards"
    roster = read_roster(folder)
    if roster is None:
        raise SystemExit(f"{library.name} holds no shards")
    return [
        Open(qdrant_edge.EdgeShard.load(str(folder / entry.name), config(dimension, entry.kind)), entry.kind == SEALED)
        for entry in roster.entries
    ]


def searcher(shards: list[Open], name: str) -> Callable[[Floats], Integers]:
    """Candidates of these filters are few enough to be scored all, as nearcase does."""
    where = compiled(parse(FILTERS[name])) if FILTERS[name] else None

    def search(query: Floats) -> Integers:
        vector = query.tolist()
        found = [point for each in shards for point in each.nearest(vector, where, where is not None)]
        best = heapq.nlargest(K, found, key=lambda point: point.score)
        return np.array([row_of(str((point.payload or {})["study_uid"])) for point in best], np.int64)

    return search


def measure(library: Path, made: Made) -> Measured:
    """The cost of the build is that of nearcase."""
    shards = opened(library, made.vectors.shape[1])
    rows = tuple(timed(made, name, searcher(shards, name), 0) for name in FILTERS)
    used = memory(os.getpid())
    return Measured("engine alone", rows, 0.0, used.anonymous_mib, used.file_mib, disk_mib(library))


if __name__ == "__main__":
    print(json.dumps(asdict(measure(Path(sys.argv[1]), read(Path(sys.argv[2]))))))
