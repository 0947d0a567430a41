"""Refuses ONNX files that name other files: their weights could be read from anywhere on the machine.

The server has no onnx package, so the file's fields are walked on the wire (protobuf encoding; field numbers of
onnx.proto, IR version 10). Weights are skipped, not read: 14 MB take under 10 ms.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

from nearcase.errors import Unready

_TENSOR = "TensorProto"
_NESTED: dict[str, dict[int, str]] = {
    "ModelProto": {7: "GraphProto", 20: "TrainingInfoProto", 25: "FunctionProto"},
    "TrainingInfoProto": {1: "GraphProto", 2: "GraphProto"},
    "GraphProto": {1: "NodeProto", 5: _TENSOR, 15: "SparseTensorProto"},
    "FunctionProto": {7: "NodeProto", 11: "AttributeProto"},
    "NodeProto": {5: "AttributeProto"},
    "AttributeProto": {
        5: _TENSOR,
        6: "GraphProto",
        10: _TENSOR,
        11: "GraphProto",
        22: "SparseTensorProto",
        23: "SparseTensorProto",
    },
    "SparseTensorProto": {1: _TENSOR, 2: _TENSOR},
    _TENSOR: {},
}
"""Which fields of a message hold messages that lead to a tensor."""

_EXTERNAL_DATA = 13  # TensorProto.external_data: where a tensor's bytes are, if not here
_DATA_LOCATION = 14  # TensorProto.data_location: 1 is EXTERNAL
_MAX_DEPTH = 64  # nested graphs


def refuse_external_data(path: Path) -> None:
    """Returns when all weights are in the file itself.

    Raises:
        Unready: The file names another file, or is no ONNX file.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            is_external = _has_external(data, 0, len(data), "ModelProto", 0)
    except (ValueError, IndexError) as error:  # mmap refuses an empty file with ValueError
        raise Unready(f"Expected {path.name} to be an ONNX file, got other bytes", reason="ONNX_INVALID") from error
    if is_external:
        raise Unready(f"Expected {path.name} to hold its weights, got external data", reason="ONNX_EXTERNAL_DATA")


def _has_external(data: mmap.mmap, start: int, stop: int, message: str, depth: int) -> bool:
    if depth > _MAX_DEPTH:
        raise ValueError("nested too deeply")
    for number, wire, first, last in _fields(data, start, stop):
        if message == _TENSOR and (number == _EXTERNAL_DATA or (number == _DATA_LOCATION and data[first] != 0)):
            return True
        nested = _NESTED[message].get(number)
        if nested and wire == 2 and _has_external(data, first, last, nested, depth + 1):
            return True
    return False


def _fields(data: mmap.mmap, start: int, stop: int) -> Iterator[tuple[int, int, int, int]]:
    """Yields (field number, wire type, first byte, byte after the last) of one message."""
    at = start
    while at < stop:
        tag, at = _varint(data, at, stop)
        wire = tag & 7
        first = at
        if wire == 0:
            _, at = _varint(data, at, stop)
        elif wire == 2:
            length, first = _varint(data, at, stop)
            at = first + length
        elif wire in (1, 5):
            at += 8 if wire == 1 else 4
        else:
            raise ValueError("unknown wire type")
        if at > stop:
            raise ValueError("field past the end")
        yield tag >> 3, wire, first, at


def _varint(data: mmap.mmap, at: int, stop: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= stop:
            break
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("broken varint")
