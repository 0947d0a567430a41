"""An encoder of the default's shape whose network computes nothing to speak of: what is left is the server."""

from __future__ import annotations

import hashlib
import re
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from nearcase.encode.card import default_encoder_folder, read_card
from nearcase.encode.inputs import to_batch
from nearcase.encode.preprocess import Recipe, resize


def empty_encoder(folder: Path) -> Path:
    """Returns the folder: the default's card and golden pictures, a mean for each channel and one product."""
    shutil.copytree(default_encoder_folder(), folder)
    card = read_card(folder)
    recipe = card.recipe
    assert isinstance(recipe, Recipe)  # noqa: S101
    network = _network(recipe.size_px, card.dimension)
    (folder / "encoder.onnx").write_bytes(network)
    text = (folder / "card.toml").read_text("utf-8")
    digest = hashlib.sha256(network).hexdigest()
    (folder / "card.toml").write_text(re.sub(r'(?m)^sha256 = ".*"$', f'sha256 = "{digest}"', text), "utf-8")
    golden = dict(np.load(folder / "golden.npz"))
    images = [golden[f"image_{at}"] for at in range(len(golden) - 1)]
    batch = to_batch(np.stack([resize(image, recipe) for image in images]), recipe)
    session = onnxruntime.InferenceSession(network, providers=["CPUExecutionProvider"])
    golden["embeddings"] = session.run(None, {"image": batch})[0]
    np.savez(folder / "golden.npz", **golden)
    return folder


def _network(size_px: int, dimension: int) -> bytes:
    helper, rng = onnx.helper, np.random.default_rng(0)
    weights = {
        "projection": rng.normal(size=(3, dimension)).astype(np.float32),
        "bias": rng.normal(size=(dimension,)).astype(np.float32),
    }
    nodes = [
        helper.make_node("GlobalAveragePool", ["image"], ["means"]),
        helper.make_node("Flatten", ["means"], ["flat"]),
        helper.make_node("MatMul", ["flat", "projection"], ["projected"]),
        helper.make_node("Add", ["projected", "bias"], ["moved"]),
        helper.make_node("LpNormalization", ["moved"], ["embedding"], axis=1, p=2),
    ]
    image = helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, ["n", 3, size_px, size_px])
    embedding = helper.make_tensor_value_info("embedding", onnx.TensorProto.FLOAT, ["n", dimension])
    stored = [onnx.numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "empty", [image], [embedding], stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return bytes(model.SerializeToString())
