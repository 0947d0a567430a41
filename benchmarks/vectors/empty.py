"""What a search that is asked over gRPC costs before anything is searched: the same messages, and nothing done."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import grpc

from nearcase.v1 import search_pb2, search_pb2_grpc
from vectors.asking import IN_FLIGHT, answers
from vectors.processes import cpu_s

SERVER = Path(__file__).parents[1] / "peers" / "empty_server.py"


def empty_call_ms(requests: Sequence[search_pb2.SearchRequest]) -> float:
    """Returns the server's CPU time of one call that reads the request and answers with no hits, in milliseconds."""
    process = subprocess.Popen([sys.executable, str(SERVER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdout  # noqa: S101
        with grpc.insecure_channel(f"127.0.0.1:{int(process.stdout.readline())}") as channel:
            stub = search_pb2_grpc.SearchServiceStub(channel)
            _ = list(answers(stub, requests[:IN_FLIGHT]))
            before_s = cpu_s(process.pid)
            _ = list(answers(stub, requests))
            spent_s = cpu_s(process.pid) - before_s
        process.communicate("")
    return spent_s / len(requests) * 1e3
