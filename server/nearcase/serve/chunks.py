"""A file that came in several messages, put together within its announced size."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

from nearcase.errors import InvalidInput, Overloaded
from nearcase.v1.types_pb2 import FileChunk


async def receive(requests: AsyncIterator[Any], check: Callable[[Any], object], max_bytes: int) -> tuple[Any, bytes]:
    """Returns the start message and the whole file of a stream of `start`, then `chunk` messages.

    Args:
        requests: Messages with a oneof `part` of start and chunk; the start has options and the file's size.
        check: Refuses wrong options before the file is read.
        max_bytes: Largest file. Memory grows with what really came, not with what was announced.

    Raises:
        InvalidInput: A message is out of place, or the file has another size than announced.
        Overloaded: The announced size is above the limit.
    """
    first = await anext(requests, None)
    if first is None or first.WhichOneof("part") != "start":
        raise InvalidInput("expected start as the first message of the stream", field="start")
    start, data = first.start, bytearray()
    check(start.options)
    check_size(start.size_bytes, max_bytes)
    async for request in requests:
        if request.WhichOneof("part") != "chunk":
            raise InvalidInput("expected only chunks after start", field="part")
        append(data, request.chunk, start.size_bytes)
    if len(data) != start.size_bytes:
        raise InvalidInput(f"expected {start.size_bytes} bytes as announced, got {len(data)}", field="size_bytes")
    return start, bytes(data)


def append(data: bytearray, chunk: FileChunk, size_bytes: int) -> None:
    """Adds one chunk at its place."""
    if chunk.offset_bytes != len(data):
        raise InvalidInput(
            f"expected the chunk at byte {len(data)}, got one at {chunk.offset_bytes}", field="offset_bytes"
        )
    if len(data) + len(chunk.data) > size_bytes:
        raise InvalidInput(f"more bytes came than the {size_bytes} announced", field="size_bytes")
    data += chunk.data


def check_size(size_bytes: int, max_bytes: int) -> None:
    """Refuses a size that is not positive or too large, before any byte of it is kept."""
    if size_bytes < 1:
        raise InvalidInput(f"expected the size of the file in bytes, got {size_bytes}", field="size_bytes")
    if size_bytes > max_bytes:
        raise Overloaded(
            f"the file has {size_bytes} bytes; this server takes at most {max_bytes}", reason="FILE_TOO_LARGE"
        )
