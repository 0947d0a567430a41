"""A file that came in several messages, put together within its announced size."""

from __future__ import annotations

from collections.abc import AsyncIterator

from nearcase.errors import InvalidInput, Overloaded
from nearcase.v1.types_pb2 import FileChunk


async def assemble(chunks: AsyncIterator[FileChunk], size_bytes: int, max_bytes: int) -> bytes:
    """Returns the whole file; memory grows with what really came, not with what was announced.

    Raises:
        InvalidInput: A chunk is out of place, or the file has another size than announced.
        Overloaded: The announced size is above the limit.
    """
    check_size(size_bytes, max_bytes)
    data = bytearray()
    async for chunk in chunks:
        append(data, chunk, size_bytes)
    if len(data) != size_bytes:
        raise InvalidInput(f"expected {size_bytes} bytes as announced, got {len(data)}", field="size_bytes")
    return bytes(data)


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
