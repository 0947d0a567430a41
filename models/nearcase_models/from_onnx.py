"""A bare ONNX file -> an encoder's folder: ends renamed, unit length and any batch made sure of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper

from nearcase.encode.card import Card
from nearcase.encode.onnx_file import refuse_external_data
from nearcase.encode.preprocess import Recipe
from nearcase.errors import InvalidInput, Unready
from nearcase_models.artefact import Identity, Made, write_artefact
from nearcase_models.export import strip_notes
from nearcase_models.golden import drawn_images
from nearcase_models.lower import opset_of
from nearcase_models.onnx_names import rename

LEAST_OPSET = 17  # LayerNormalization is one node from there on, which keeps its sums in fp32
SAME = 0.9999
_RANK = 4


def import_onnx(file: Path, out: Path, identity: Identity, recipe: Recipe) -> Card:
    """Writes the encoder's folder and returns its card.

    Args:
        file: One input (N, 3, size, size) and one output (N, D), both float32, under any names.
        out: The folder, which must not exist.
        identity: What the card says in words.
        recipe: How images are made into the input; nothing in the file tells.

    Raises:
        InvalidInput: The file is no such network, keeps weights elsewhere, or gives an image another embedding in a
            batch than alone.
    """
    model = _read(file)
    _rename_ends(model, recipe)
    _make_unit(model)
    model = onnx.shape_inference.infer_shapes(model)
    strip_notes(model)
    dimension = _checked_dimension(model, recipe)

    def build(folder: Path) -> Made:
        (folder / "encoder.onnx").write_bytes(model.SerializeToString(deterministic=True))
        return Made(dimension=dimension, opset=opset_of(model), precision="fp32", recipe=recipe, golden=drawn_images())

    return write_artefact(out, identity, build)


def _read(file: Path) -> onnx.ModelProto:
    try:
        refuse_external_data(file)
        model = onnx.load(file, load_external_data=False)
        onnx.checker.check_model(model)
    except Unready as error:
        raise InvalidInput(str(error)) from None
    except Exception as error:  # its error types share no base class
        raise InvalidInput(f"expected a sound ONNX file, got: {' '.join(str(error).split())[:160]}") from None
    if opset_of(model) < LEAST_OPSET:
        raise InvalidInput(f"expected opset {LEAST_OPSET} or later, got {opset_of(model)}; export it again")
    return model


def _rename_ends(model: onnx.ModelProto, recipe: Recipe) -> None:
    """Gives the input and the output the names that runtimes know, and a batch of any size."""
    graph = model.graph
    stored = {each.name for each in graph.initializer}
    inputs = [each for each in graph.input if each.name not in stored]
    if len(inputs) != 1 or len(graph.output) != 1:
        raise InvalidInput(f"expected one input and one output, got {len(inputs)} and {len(graph.output)}")
    for end, name, rank in ((inputs[0], "image", _RANK), (graph.output[0], "embedding", 2)):
        kind = end.type.tensor_type
        if kind.elem_type != TensorProto.FLOAT or len(kind.shape.dim) != rank:
            raise InvalidInput(f"expected a float32 {name} of {rank} axes, got another")
        rename(model, end.name, name)
        kind.shape.dim[0].Clear()
        kind.shape.dim[0].dim_param = "batch"
    for axis, size in zip(inputs[0].type.tensor_type.shape.dim[1:], recipe.input_shape, strict=True):
        if axis.HasField("dim_value") and axis.dim_value != size:
            raise InvalidInput(f"expected an input {recipe.input_shape}, as --size says, got {axis.dim_value} in it")
        axis.dim_value = size


def _make_unit(model: onnx.ModelProto) -> None:
    """Scales the output to unit length in the graph; vectors of unit length stay as they are."""
    rename(model, "embedding", "raw_embedding")
    model.graph.output[0].name = "embedding"
    node = helper.make_node("LpNormalization", ["raw_embedding"], ["embedding"], axis=1, p=2)
    model.graph.node.append(node)


def _checked_dimension(model: onnx.ModelProto, recipe: Recipe) -> int:
    """Runs the network in batches: the law that an image embeds the same alone and in any batch."""
    images = np.random.default_rng(6).standard_normal((3, *recipe.input_shape), np.float32)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        together: NDArray[np.float32] = session.run(["embedding"], {"image": images})[0]
        alone = np.concatenate([session.run(["embedding"], {"image": image[None]})[0] for image in images])
    except Exception as error:  # its error types share no base class
        said = " ".join(str(error).split())[:160]
        raise InvalidInput(f"the network does not run with batches of 1 and 3: {said}") from None
    if together.shape != alone.shape or together.ndim != 2 or not np.isfinite(together).all():
        raise InvalidInput(f"expected one finite vector for each image, got {together.shape}")
    least = float(np.sum(together.astype(np.float64) * alone, axis=1).min())
    if not least >= SAME:
        raise InvalidInput(f"expected an image to embed the same in a batch and alone, got cosine {least:.4f}")
    model.graph.output[0].type.tensor_type.shape.dim[1].Clear()
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = together.shape[1]
    return int(together.shape[1])
