"""The libraries that nearcase is compared with, each in a process of its own: `python -m vectors.peers NAME FOLDER`.

HNSW: m = 16, ef_construction = 100. The effort of a search is raised until recall@10 is 0.99, and the cheapest that
reaches it is reported; where none does, the best that was reached.
"""

from __future__ import annotations

import json
import mmap
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vectors.made import FILTERS, Floats, Integers, K, Made, read
from vectors.processes import memory

GOAL = 0.99
EFFORTS = (64, 128, 256, 512)
M, EF_CONSTRUCTION = 16, 100


@dataclass(frozen=True, slots=True)
class Row:
    """One engine under one filter."""

    filter: str
    recall: float
    cpu_ms: float  # of a query
    effort: int  # ef; 0 for exact


@dataclass(frozen=True, slots=True)
class Measured:
    """One engine."""

    engine: str
    rows: tuple[Row, ...]
    build_cpu_s: float
    anonymous_mib: float
    file_mib: float
    disk_mib: float


Search = Callable[[Floats], Integers]


class Peer(Protocol):
    """An engine with the data in it."""

    @property
    def efforts(self) -> tuple[int, ...]:
        """What to raise until recall is enough; (0,) is exact."""
        ...

    def searcher(self, rows: Integers | None, effort: int) -> Search:
        """Returns what finds the K nearest among the rows; None is all."""
        ...

    def size_bytes(self) -> int:
        """What it takes on disk."""
        ...


class NumpyExact:
    """One product of a matrix and a vector."""

    efforts: tuple[int, ...] = (0,)

    def __init__(self, vectors: Floats) -> None:
        self._vectors = np.array(vectors)

    def searcher(self, rows: Integers | None, effort: int) -> Search:
        """Of a filter, the rows are gathered for each query, as a caller with changing filters has to."""

        def search(query: Floats) -> Integers:
            similarities = (self._vectors if rows is None else self._vectors[rows]) @ query
            best = np.argpartition(-similarities, K)[:K]
            return best if rows is None else rows[best]

        return search

    def size_bytes(self) -> int:
        """The matrix."""
        return int(self._vectors.nbytes)


class Faiss:
    """Flat, or HNSW."""

    def __init__(self, vectors: Floats, kind: str) -> None:
        import faiss

        faiss.omp_set_num_threads(1)
        self._faiss: Any = faiss
        dimension = vectors.shape[1]
        self.efforts: tuple[int, ...] = (0,) if kind == "flat" else EFFORTS
        if kind == "flat":
            self._index: Any = faiss.IndexFlatIP(dimension)
        else:
            self._index = faiss.IndexHNSWFlat(dimension, M, faiss.METRIC_INNER_PRODUCT)
            self._index.hnsw.efConstruction = EF_CONSTRUCTION
        for start in range(0, len(vectors), 10_000):
            self._index.add(np.ascontiguousarray(vectors[start : start + 10_000]))

    def searcher(self, rows: Integers | None, effort: int) -> Search:
        """A filter is a bitmap."""
        given: dict[str, Any] = {"efSearch": effort} if effort else {}
        if rows is not None:
            bits = np.zeros(self._index.ntotal, bool)
            bits[rows] = True
            given["sel"] = self._faiss.IDSelectorBitmap(np.packbits(bits, bitorder="little"))
        kind = self._faiss.SearchParametersHNSW if effort else self._faiss.SearchParameters
        parameters = kind(**given)

        def search(query: Floats) -> Integers:
            found: Integers = self._index.search(query[None], K, params=parameters)[1][0]
            return found[found >= 0]

        return search

    def size_bytes(self) -> int:
        """The serialized index."""
        return len(self._faiss.serialize_index(self._index))


class Hnswlib:
    """HNSW; a filter is a function in Python."""

    efforts: tuple[int, ...] = EFFORTS

    def __init__(self, vectors: Floats) -> None:
        import hnswlib

        self._index = hnswlib.Index(space="ip", dim=vectors.shape[1])
        self._index.init_index(max_elements=len(vectors), M=M, ef_construction=EF_CONSTRUCTION, random_seed=0)
        self._index.set_num_threads(1)
        for start in range(0, len(vectors), 10_000):
            self._index.add_items(np.ascontiguousarray(vectors[start : start + 10_000]))

    def searcher(self, rows: Integers | None, effort: int) -> Search:
        """Returns fewer than K where the graph finds fewer."""
        kept = None if rows is None else set(rows.tolist())
        self._index.set_ef(effort)

        def search(query: Floats) -> Integers:
            chosen = {} if kept is None else {"filter": kept.__contains__}
            try:
                return np.asarray(self._index.knn_query(query, k=K, **chosen)[0][0], np.int64)
            except RuntimeError:  # it found fewer than K
                return np.empty(0, np.int64)

        return search

    def size_bytes(self) -> int:
        """What save_index writes."""
        return int(self._index.index_file_size())


PEERS: dict[str, Callable[[Floats], Peer]] = {
    "NumPy exact": NumpyExact,
    "faiss flat": lambda vectors: Faiss(vectors, "flat"),
    "faiss HNSW": lambda vectors: Faiss(vectors, "hnsw"),
    "hnswlib": Hnswlib,
}


def measure(name: str, made: Made) -> Measured:
    """Builds, then searches under every filter."""
    start_s = time.process_time()
    peer = PEERS[name](made.vectors)
    build_s = time.process_time() - start_s
    made.vectors._mmap.madvise(mmap.MADV_DONTNEED)  # type: ignore[attr-defined]  # the input is no part of the engine
    used = memory(os.getpid())
    rows = tuple(_cheapest(peer, made, each) for each in FILTERS)
    return Measured(name, rows, build_s, used.anonymous_mib, used.file_mib, peer.size_bytes() / 2**20)


def _cheapest(peer: Peer, made: Made, name: str) -> Row:
    rows = None if name == "none" else made.rows(name)
    best = Row(name, -1.0, 0.0, 0)
    for effort in peer.efforts:
        row = timed(made, name, peer.searcher(rows, effort), effort)
        best = max(best, row, key=lambda each: each.recall)
        if row.recall >= GOAL:
            return row
    return best


def timed(made: Made, name: str, search: Search, effort: int) -> Row:
    """Recall of all queries, and CPU time of a query when they are asked again: files are in memory then."""
    queries: NDArray[np.float32] = np.array(made.queries)
    found = [search(query) for query in queries]
    start_s = time.process_time()
    for query in queries:
        search(query)
    cpu_ms = (time.process_time() - start_s) / len(queries) * 1e3
    recall = float(np.mean([made.recall(name, number, rows) for number, rows in enumerate(found)]))
    return Row(name, recall, cpu_ms, effort)


def main() -> None:
    """Prints one JSON object."""
    print(json.dumps(asdict(measure(sys.argv[1], read(Path(sys.argv[2]))))))


if __name__ == "__main__":
    main()
