"""Names of values in an ONNX graph."""

from __future__ import annotations

import onnx


def rename(model: onnx.ModelProto, old: str, new: str) -> None:
    """Gives a value another name, wherever it is named; a value that has that name already gets a longer one."""
    if old == new:
        return
    graph = model.graph
    stored = {weight.name for weight in graph.initializer}
    ends = {value.name for value in (*graph.input, *graph.output)}
    if new in stored | ends | {name for node in graph.node for name in (*node.input, *node.output)}:
        rename(model, new, f"{new}_inside")
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [new if name == old else name for name in names]
    for value in (*graph.input, *graph.output, *graph.value_info):
        value.name = new if value.name == old else value.name
    for weight in graph.initializer:
        weight.name = new if weight.name == old else weight.name
