"""Framed JSON over a socket: the only words that pass between the server and a sandboxed child.

A frame is its length as four big-endian bytes and then one JSON object. Bulk bytes never travel here: they lie in
anonymous files whose descriptors go with a frame. Nothing is ever unpickled.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Sequence
from typing import Any

JsonObject = dict[str, Any]

MAX_FRAME_BYTES = 1 << 20
_LENGTH_BYTES = 4


class BrokenWireError(Exception):
    """The other side is gone, or what it sent is no frame."""


def send(sock: socket.socket, message: JsonObject, descriptors: Sequence[int] = ()) -> None:
    """Sends one frame, with open file descriptors if there are any.

    Raises:
        ValueError: The message holds NaN, or is larger than MAX_FRAME_BYTES.
        OSError: The other side is gone.
    """
    body = json.dumps(message, allow_nan=False).encode()
    if len(body) > MAX_FRAME_BYTES:
        raise ValueError(f"expected a frame of at most {MAX_FRAME_BYTES} bytes, got {len(body)}")
    length = len(body).to_bytes(_LENGTH_BYTES, "big")
    frame = length + body  # in one piece, which wakes the other side once
    sent = socket.send_fds(sock, [frame], list(descriptors)) if descriptors else 0
    if sent < len(frame):
        sock.sendall(memoryview(frame)[sent:])


def receive(sock: socket.socket, *, deadline_s: float | None = None) -> JsonObject:
    """Receives one frame; deadline_s is a time.monotonic() after which the wait ends.

    Raises:
        BrokenWireError: The other side is gone, or sent something else than a frame.
        TimeoutError: The deadline passed first.
    """
    return _body(sock, _exactly(sock, _LENGTH_BYTES, deadline_s), deadline_s)


def receive_with_descriptors(sock: socket.socket, count: int) -> tuple[JsonObject, list[int]]:
    """Receives one frame and the descriptors that came with it.

    Raises:
        BrokenWireError: The other side is gone, or sent something else than a frame with count descriptors.
    """
    length, descriptors, _, _ = socket.recv_fds(sock, _LENGTH_BYTES, count)
    if len(length) != _LENGTH_BYTES or len(descriptors) != count:
        raise BrokenWireError
    return _body(sock, length, None), descriptors


def _body(sock: socket.socket, length: bytes, deadline_s: float | None) -> JsonObject:
    size = int.from_bytes(length, "big")
    if size > MAX_FRAME_BYTES:
        raise BrokenWireError
    try:
        message = json.loads(_exactly(sock, size, deadline_s), parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise BrokenWireError from None
    if not isinstance(message, dict):
        raise BrokenWireError
    return message


def _refuse(constant: str) -> object:
    raise ValueError(constant)  # NaN and Infinity are no JSON


def _exactly(sock: socket.socket, size: int, deadline_s: float | None) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        sock.settimeout(None if deadline_s is None else max(deadline_s - time.monotonic(), 0.001))
        try:
            part = sock.recv(size - len(parts))
        except TimeoutError:
            raise
        except OSError:
            part = b""
        if not part:
            raise BrokenWireError
        parts += part
    return bytes(parts)
