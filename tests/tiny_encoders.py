"""Encoder folders that are made on the spot: a small network with random weights, its card and its golden file."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from nearcase.encode.card import Card
from nearcase.encode.preprocess import STRETCH, Recipe, normalise, resize

SIDE_PX = 32
CARD = """
name = "{name}"
version = "1"
description = "Random weights, for tests."
origin = "tests"
licence = "Apache-2.0"
statement = "Random weights, not medical."
is_medical = false
dimension = {dimension}
opset = 18
precision = "fp32"
sha256 = "{sha256}"

[recipe]
name = "{recipe}"
version = {version}
size_px = {side}
mean = [0.5, 0.5, 0.5]
std = [0.25, 0.25, 0.25]
"""


def tiny_encoder(folder: Path, name: str, *, seed: int, dimension: int = 24) -> Path:
    """Returns the folder of an encoder: one convolution, ReLU, a projection, unit length."""
    folder.mkdir(parents=True)
    network = _network(seed, dimension)
    (folder / "encoder.onnx").write_bytes(network)
    digest = hashlib.sha256(network).hexdigest()
    recipe, version = STRETCH
    card = CARD.format(name=name, dimension=dimension, sha256=digest, recipe=recipe, version=version, side=SIDE_PX)
    (folder / "card.toml").write_text(card)
    images = np.random.default_rng(0).integers(0, 256, (2, 40, 50), dtype=np.uint8)
    made = Recipe(recipe, version, SIDE_PX, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    vectors = _run(network, normalise(np.stack([resize(image, made) for image in images]), made))
    np.savez(folder / "golden.npz", embeddings=vectors, image_0=images[0], image_1=images[1])
    return folder


def _network(seed: int, dimension: int) -> bytes:
    onnx = pytest.importorskip("onnx", reason="onnx builds the network of this test: pip install nearcase[models]")
    rng, helper = np.random.default_rng(seed), onnx.helper
    weights = {
        "kernel": rng.normal(size=(8, 3, 8, 8)).astype(np.float32) / 8,
        "projection": rng.normal(size=(8 * (SIDE_PX // 8) ** 2, dimension)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["image", "kernel"], ["maps"], strides=[8, 8]),
        helper.make_node("Relu", ["maps"], ["active"]),
        helper.make_node("Flatten", ["active"], ["flat"]),
        helper.make_node("MatMul", ["flat", "projection"], ["projected"]),
        helper.make_node("LpNormalization", ["projected"], ["embedding"], axis=1, p=2),
    ]
    ends = [
        helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, ["n", 3, SIDE_PX, SIDE_PX]),
        helper.make_tensor_value_info("embedding", onnx.TensorProto.FLOAT, ["n", dimension]),
    ]
    stored = [onnx.numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "tiny", ends[:1], ends[1:], stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    serialized: bytes = model.SerializeToString()
    return serialized


def _run(network: bytes, batch: NDArray[np.float32]) -> NDArray[np.float32]:
    import onnxruntime

    session = onnxruntime.InferenceSession(network, providers=["CPUExecutionProvider"])
    vectors: NDArray[np.float32] = session.run(["embedding"], {"image": batch})[0]
    return vectors


def picture_recipe(card: Card) -> Recipe:
    """The recipe of an encoder of pictures."""
    assert isinstance(card.recipe, Recipe)
    return card.recipe
