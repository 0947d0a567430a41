"""A torch network -> one ONNX file that gives the same embeddings, and the measurement that it does."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import nn

OPSET = 18  # what torch's exporter writes natively; onnxruntime and TensorRT read it
TRACED_BATCH = 2


def export_onnx(model: nn.Module, size_px: int, path: Path) -> None:
    """Writes the network with input "image" (batch, 3, size, size) and output "embedding" (batch, D), both float32.

    The exporter's notes are left out: they hold the source paths of the machine that it ran on.
    """
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    example = torch.zeros(TRACED_BATCH, 3, size_px, size_px)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch warns of its own use of its old names
        program = torch.onnx.export(
            model,
            (example,),
            dynamo=True,
            opset_version=OPSET,
            input_names=["image"],
            output_names=["embedding"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            external_data=False,
            verbose=False,
        )
    if program is None:
        raise RuntimeError("Expected torch to export a program, got none")
    proto = program.model_proto
    _strip_notes(proto)
    onnx.checker.check_model(proto, full_check=True)
    path.write_bytes(proto.SerializeToString(deterministic=True))


def parity(model: nn.Module, path: Path, batches: Sequence[NDArray[np.float32]]) -> float:
    """Returns the largest absolute difference between torch's embeddings and the file's, over all batches."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    worst = 0.0
    for batch in batches:
        with torch.inference_mode():
            expected = model(torch.from_numpy(batch)).numpy()
        found = session.run(["embedding"], {"image": batch})[0]
        worst = max(worst, float(np.abs(expected - found).max()))
    return worst


def _strip_notes(proto: onnx.ModelProto) -> None:
    graph = proto.graph
    noted: list[Any] = [proto, graph, *graph.node, *graph.initializer, *graph.input, *graph.output, *graph.value_info]
    for part in noted:
        del part.metadata_props[:]
        part.doc_string = ""
    graph.name = "encoder"
