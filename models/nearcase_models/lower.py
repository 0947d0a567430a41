"""An fp32 ONNX network -> fp16 or bf16, with what needs range or sums kept in fp32.

Convolutions, matrix products and what moves or joins their results run in 16 bits; LayerNorm, softmax, reductions,
lengths and everything not named here stay in 32, so that no sum over many values loses its small ones. Input and output
stay float32. Casts are put where the two meet, once for each value.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnx.version_converter
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from nearcase.errors import InvalidInput

_NAMES = """
    Conv ConvTranspose Gemm MatMul Add Mul Relu Clip Min Max MaxPool AveragePool Concat Split Slice Gather Reshape
    Transpose Squeeze Unsqueeze Flatten Expand Pad Identity Where DepthToSpace SpaceToDepth
"""
LOWERED = frozenset(_NAMES.split())
"""Operators whose inputs and outputs become 16 bit: products, and what only moves or combines their results."""

KINDS = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
_BF16_OPSET = 22  # the first in which convolutions take bf16
_LARGEST_FP16 = float(np.finfo(np.float16).max)


def lower(model: onnx.ModelProto, precision: str) -> onnx.ModelProto:
    """Returns the network in 16 bits.

    Args:
        model: In fp32, one graph without branches or loops.
        precision: fp16 or bf16.

    Raises:
        InvalidInput: The network is not fp32, has control flow or functions, or a weight does not fit fp16.
    """
    _check(model)
    lowered = onnx.ModelProto()
    lowered.CopyFrom(model)
    if precision == "bf16" and opset_of(model) < _BF16_OPSET:
        lowered = onnx.version_converter.convert_version(model, _BF16_OPSET)
    _Lowering(lowered, precision).run()
    onnx.checker.check_model(lowered, full_check=True)
    return lowered


def opset_of(model: onnx.ModelProto) -> int:
    """Returns the version of ONNX's own operators that a network uses."""
    return max((each.version for each in model.opset_import if each.domain in ("", "ai.onnx")), default=0)


def emulate(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns a lowered network in fp32 arithmetic, whose 16-bit values are rounded wherever they would be stored.

    A CPU has no bf16 kernels; products that are summed in fp32 and stored in bf16 are what tensor cores make.
    """
    emulated = onnx.ModelProto()
    emulated.CopyFrom(model)
    _Emulation(emulated).run()
    onnx.checker.check_model(emulated)
    return emulated


def _check(model: onnx.ModelProto) -> None:
    if model.functions or any(attribute.HasField("g") for node in model.graph.node for attribute in node.attribute):
        raise InvalidInput("expected one plain graph, got functions, branches or loops")
    ends = (*model.graph.input, *model.graph.output)
    stored = {each.data_type for each in model.graph.initializer}
    kinds = {end.type.tensor_type.elem_type for end in ends} | (stored & set(KINDS.values()))
    if kinds != {TensorProto.FLOAT}:
        raise InvalidInput("expected a network in fp32, got other precisions")


class _Lowering:
    """Walks the nodes in their order; knows for each value which of its two forms are there."""

    def __init__(self, model: onnx.ModelProto, precision: str) -> None:
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
        typed = (*inferred.value_info, *inferred.input, *inferred.output)
        self._floats = {value.name for value in typed if value.type.tensor_type.elem_type == TensorProto.FLOAT}
        self._weights = {each.name: each for each in model.graph.initializer if each.data_type == TensorProto.FLOAT}
        self._graph, self._kind = model.graph, KINDS[precision]
        self._is_low: dict[str, bool] = {value.name: False for value in model.graph.input}
        self._casts: dict[tuple[str, bool], str] = {}
        self._nodes: list[onnx.NodeProto] = []

    def run(self) -> None:
        """Rewrites the graph in place."""
        for node in self._graph.node:
            self._take(node)
        for end in self._graph.output:
            self._raise_output(end.name)
        del self._graph.node[:]
        self._graph.node.extend(self._nodes)
        del self._graph.value_info[:]  # states the old precisions
        used = {name for node in self._nodes for name in node.input}
        kept = [each for each in self._graph.initializer if each.name in used]
        del self._graph.initializer[:]
        self._graph.initializer.extend(kept)

    def _take(self, node: onnx.NodeProto) -> None:
        wants_low = node.op_type in LOWERED and any(name in self._floats for name in node.output)
        for place, name in enumerate(node.input):
            if name in self._weights or name in self._floats:
                node.input[place] = self._form(name, wants_low)
        for name in node.output:
            self._is_low[name] = wants_low and name in self._floats
        self._nodes.append(node)

    def _form(self, name: str, is_low: bool) -> str:
        """The name of a value in the wanted form; makes it where it is not there yet."""
        if name in self._weights:
            return self._weight(name) if is_low else name
        if self._is_low.get(name, False) == is_low:
            return name
        if (name, is_low) not in self._casts:
            made = f"{name}_as_{'low' if is_low else 'fp32'}"
            self._nodes.append(helper.make_node("Cast", [name], [made], to=self._kind if is_low else TensorProto.FLOAT))
            self._casts[name, is_low] = made
        return self._casts[name, is_low]

    def _weight(self, name: str) -> str:
        made = f"{name}_low"
        if (name, True) not in self._casts:
            values = numpy_helper.to_array(self._weights[name])
            if self._kind == TensorProto.FLOAT16 and float(np.abs(values).max(initial=0.0)) > _LARGEST_FP16:
                raise InvalidInput(f"the weight {name[:80]} does not fit fp16; try bf16")
            self._graph.initializer.append(_stored(values, made, self._kind))
            self._casts[name, True] = made
        return made

    def _raise_output(self, name: str) -> None:
        if self._is_low[name]:
            inner = f"{name}_low"
            for node in self._nodes:
                for names in (node.input, node.output):
                    names[:] = [inner if each == name else each for each in names]
            self._nodes.append(helper.make_node("Cast", [inner], [name], to=TensorProto.FLOAT))


class _Emulation:
    def __init__(self, model: onnx.ModelProto) -> None:
        self._graph = model.graph
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
        self._kinds = {
            value.name: value.type.tensor_type.elem_type
            for value in (*inferred.value_info, *inferred.input, *inferred.output)
            if value.type.tensor_type.elem_type in KINDS.values()
        }

    def run(self) -> None:
        """Rewrites the graph in place."""
        nodes: list[onnx.NodeProto] = []
        for node in self._graph.node:
            rounded = [name for name in node.output if name in self._kinds]
            if node.op_type == "Cast" and not rounded:
                node.op_type = "Identity"  # from 16 bits up: it is fp32 already
                del node.attribute[:]
            if node.op_type == "Cast":
                node.attribute[0].i = TensorProto.FLOAT
            nodes.append(node)
            for name in rounded:
                node.output[list(node.output).index(name)] = f"{name}_exact"
                nodes.append(helper.make_node("Cast", [f"{name}_exact"], [f"{name}_stored"], to=self._kinds[name]))
                nodes.append(helper.make_node("Cast", [f"{name}_stored"], [name], to=TensorProto.FLOAT))
        del self._graph.node[:]
        self._graph.node.extend(nodes)
        del self._graph.value_info[:]
        for weight in self._graph.initializer:
            if weight.data_type in KINDS.values():
                weight.CopyFrom(_stored(_values(weight), weight.name, TensorProto.FLOAT))


def _values(weight: TensorProto) -> NDArray[np.float32]:
    if weight.data_type == TensorProto.FLOAT16:
        return numpy_helper.to_array(weight).astype(np.float32)
    halves = np.frombuffer(weight.raw_data, np.uint16).astype(np.uint32)  # bf16 is the upper half of fp32
    return (halves << 16).view(np.float32).reshape(tuple(weight.dims))


def _stored(values: NDArray[np.float32], name: str, kind: int) -> TensorProto:
    if kind == TensorProto.FLOAT:
        return numpy_helper.from_array(np.ascontiguousarray(values, np.float32), name)
    if kind == TensorProto.FLOAT16:
        return numpy_helper.from_array(values.astype(np.float16), name)
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16  # to the nearest, ties to even
    raw = rounded.astype(np.uint16).tobytes()
    return TensorProto(name=name, data_type=kind, dims=list(values.shape), raw_data=raw)
