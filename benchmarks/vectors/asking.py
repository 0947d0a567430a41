"""Searches kept in flight: so many at once, answers in their order."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

import grpc

from nearcase.v1 import search_pb2, search_pb2_grpc

IN_FLIGHT = 8
"""Searches at once, as a busy server has; alone each costs 0.1 ms more, for waking."""


def answers(
    stub: search_pb2_grpc.SearchServiceStub, requests: Sequence[search_pb2.SearchRequest]
) -> Iterator[search_pb2.SearchResponse]:
    """Sends them with IN_FLIGHT at once; answers in their order."""
    waiting: deque[grpc.Future[search_pb2.SearchResponse]] = deque()
    for request in requests:
        waiting.append(stub.Search.future(request, timeout=60))
        if len(waiting) == IN_FLIGHT:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
