"""nearcase as it is used: a server in a process of its own, asked over gRPC with embeddings."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np

from nearcase.demo.server import running_server
from nearcase.encode.card import read_card
from nearcase.v1 import library_pb2, library_pb2_grpc, search_pb2, search_pb2_grpc
from vectors.asking import answers
from vectors.empty import empty_call_ms
from vectors.load import row_of
from vectors.made import FILTERS, Floats, K, Made
from vectors.peers import Measured, Row
from vectors.processes import cpu_s, disk_mib, find, memory, tree

ROUNDS = 5
HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU time of one search under one filter."""

    filter: str
    server_ms: float
    index_ms: float


@dataclass(frozen=True, slots=True)
class Served:
    """What was measured of nearcase."""

    measured: Measured
    costs: tuple[Cost, ...]
    parts: tuple[str, ...]  # what the index was made of
    reopened_s: float  # after `kill -9`: from the start of the command to the first answer
    empty_call_ms: float  # CPU of a gRPC server that reads the same searches and does nothing


class Target:
    """A running server, its processes, and a stub."""

    def __init__(self, address: str, pid: int, encoder_sha256: str) -> None:
        self._channel = grpc.insecure_channel(address)
        self.stub = search_pb2_grpc.SearchServiceStub(self._channel)
        self.library = library_pb2_grpc.LibraryServiceStub(self._channel)
        self.address, self.server_pid, self.encoder_sha256 = address, pid, encoder_sha256
        index_pid = find(tree(pid), "nearcase.index.edge.process")
        if index_pid is None:
            raise SystemExit("the server has no index process")
        self.index_pid = index_pid

    def request(self, vector: Floats, where: str) -> search_pb2.SearchRequest:
        """A search by an embedding that the caller kept."""
        kept = search_pb2.EncodedVector(values=vector.tolist(), encoder_sha256=self.encoder_sha256)
        options = search_pb2.SearchOptions(k=K, filter=where)
        return search_pb2.SearchRequest(examples=[search_pb2.Example(vector=kept)], options=options)

    def answers(self, requests: Sequence[search_pb2.SearchRequest]) -> Iterator[search_pb2.SearchResponse]:
        """Sends them with IN_FLIGHT at once; answers in their order."""
        return answers(self.stub, requests)

    def recall(self, made: Made, name: str) -> float:
        """Recall@10 under a filter, over all queries."""
        requests = [self.request(query, FILTERS[name]) for query in np.array(made.queries)]
        found = [[row_of(hit.case.facts.study_uid) for hit in each.hits] for each in self.answers(requests)]
        return float(np.mean([made.recall(name, at, np.array(each)) for at, each in enumerate(found)]))

    def parts(self) -> tuple[str, ...]:
        """What the index is made of, in words."""
        state = self.library.GetStatistics(library_pb2.GetStatisticsRequest(), timeout=600).index
        return tuple(f"{part.kind} {part.case_count:,}" for part in state.parts)

    def is_building(self) -> bool:
        """Whether a part is being sealed or merged; the server is not asked, since counting keeps searches waiting."""
        return find(tree(self.server_pid), "nearcase.index.edge.builder") is not None

    def kill(self) -> None:
        """`kill -9`, and waits until the processes are gone."""
        pids = tree(self.server_pid)
        os.kill(self.server_pid, signal.SIGKILL)
        while any(Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes() for pid in pids):
            time.sleep(0.01)

    def cpu_s(self) -> tuple[float, float]:
        """Of the server's process and of the index process."""
        return cpu_s(self.server_pid), cpu_s(self.index_pid)


@contextmanager
def target(data: Path, encoder: Path) -> Iterator[Target]:
    """A server over the data folder; its own check of recall would be measured too, so it is off, and so is the audit
    trail, which no other engine here keeps: benchmarks/audit_trail.py tells what it costs.
    """
    settings = data / "settings.toml"
    settings.write_text('recall_check_hours = 0.0\ndecode_workers = 1\naudit = "off"\n')
    with running_server(data, "--encoder", str(encoder), "--settings", str(settings)) as server:
        yield Target(server.address, server.process.pid, read_card(encoder).sha256)


def fill(data: Path, encoder: Path, made: Path) -> float:
    """Loads the data set; returns the CPU seconds of all processes that took part."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "vectors.load", str(data), str(encoder), str(made)]
    subprocess.run(command, cwd=HERE.parent, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(data: Path, encoder: Path, made: Made, build_cpu_s: float) -> Served:
    """Recall and cost under every filter, then memory and disk."""
    with target(data, encoder) as server:
        parts, rows, costs = server.parts(), [], []
        for name, where in FILTERS.items():
            recall = server.recall(made, name)
            requests = [server.request(query, where) for query in np.array(made.queries)]
            costs.append(_cost(server, name, requests * ROUNDS))
            rows.append(Row(name, recall, costs[-1].server_ms + costs[-1].index_ms, 0))
        used = memory(server.index_pid)
        nothing_ms = empty_call_ms([server.request(query, "") for query in np.array(made.queries)] * ROUNDS)
        server.kill()
    start_s = time.monotonic()
    with target(data, encoder) as server:
        next(server.answers([server.request(np.array(made.queries)[0], "")]))
        reopened_s = time.monotonic() - start_s
    measured = Measured(
        "nearcase", tuple(rows), build_cpu_s, used.anonymous_mib, used.file_mib, disk_mib(data / "library")
    )
    return Served(measured, tuple(costs), parts, reopened_s, nothing_ms)


def _cost(server: Target, name: str, requests: Sequence[search_pb2.SearchRequest]) -> Cost:
    before = server.cpu_s()
    for _ in server.answers(requests):
        pass
    spent = [(after - start) / len(requests) * 1e3 for start, after in zip(before, server.cpu_s(), strict=True)]
    return Cost(name, *spent)
