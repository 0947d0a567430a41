"""A gRPC server that answers searches with nothing: what is left is the carrying of their bytes.

Started as `python empty_server.py`; prints its port, and ends with its input.
"""

from __future__ import annotations

import asyncio
import sys

import grpc

from nearcase.channel import MAX_MESSAGE_BYTES
from nearcase.v1 import search_pb2, search_pb2_grpc


class Empty(search_pb2_grpc.SearchServiceServicer):
    """Reads the message, which is all that it does."""

    async def Search(self, request: search_pb2.SearchRequest, context: object) -> search_pb2.SearchResponse:  # noqa: N802
        """Answers with no hits."""
        return search_pb2.SearchResponse()

    async def SearchStream(self, requests: object, context: object) -> search_pb2.SearchStreamResponse:  # noqa: N802
        """The same for a stream that nobody sends."""
        return search_pb2.SearchStreamResponse()


async def serve() -> None:
    """Until the input ends."""
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", MAX_MESSAGE_BYTES)])
    search_pb2_grpc.add_SearchServiceServicer_to_server(Empty(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(0)


if __name__ == "__main__":
    asyncio.run(serve())
