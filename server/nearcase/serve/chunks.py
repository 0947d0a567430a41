"""A file that came in several messages, put together within its announced size."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

from nearcase.errors import InvalidInput, Overloaded
from nearcase.v1.types_pb2 import FileChunk

Request = TypeVar("Request")

MAX_PAUSE_S = 30.0
"""Between two messages of a file that somebody waits for the answer to; an adding stream may rest for longer."""


async def receive(
    requests: AsyncIterator[Any], check: Callable[[Any], object], max_bytes: int, idle_s: float
) -> tuple[Any, bytes]:
    """Returns the start message and the whole file of a stream of `start`, then `chunk` messages.

    Args:
        requests: Messages with a oneof `part` of start and chunk; the start has options and the file's size.
        check: Refuses wrong options before the file is read.
        max_bytes: Largest file. Memory grows with what really came, not with what was announced.
        idle_s: Time for each message, at most MAX_PAUSE_S: the stream has the place of a search.

    Raises:
        InvalidInput: A message is out of place, or the file has another size than announced.
        Overloaded: The announced size is above the limit, or nothing came for too long.
    """
    idle_s = min(idle_s, MAX_PAUSE_S)
    first = await next_of(requests, idle_s)
    if first is None or first.WhichOneof("part") != "start":
        raise InvalidInput("expected start as the first message of the stream", field="start")
    start, data = first.start, bytearray()
    check(start.options)
    check_size(start.size_bytes, max_bytes)
    while (request := await next_of(requests, idle_s)) is not None:
        if request.WhichOneof("part") != "chunk":
            raise InvalidInput("expected only chunks after start", field="part")
        append(data, request.chunk, start.size_bytes)
    if len(data) != start.size_bytes:
        raise InvalidInput(f"expected {start.size_bytes} bytes as announced, got {len(data)}", field="size_bytes")
    return start, bytes(data)


async def next_of(requests: AsyncIterator[Request], idle_s: float) -> Request | None:
    """Returns the next message of a stream, None at its end; raises Overloaded where none comes in time."""
    try:
        async with asyncio.timeout(idle_s):
            return await anext(requests, None)
    except TimeoutError:
        raise Overloaded(f"nothing came for {idle_s:g} s, so the stream was ended", reason="IDLE_STREAM") from None


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
