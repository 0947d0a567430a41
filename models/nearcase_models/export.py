"""A torch network -> one ONNX file that gives the same embeddings, and the measurement that it does."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import nn

from nearcase_models.onnx_names import rename

OPSET = 18  # what torch's exporter writes natively; onnxruntime and TensorRT read it
TRACED_BATCH = 2
_OUTPUT = "embedding_of_the_whole"  # until it is traced: torch calls the values of embedding tables "embedding"


def export_onnx(model: nn.Module, input_shape: tuple[int, ...], path: Path) -> None:
    """Writes the network with input "image" (batch, *input_shape) and output "embedding" (batch, D), both float32.

    The exporter's notes are left out: they hold the source paths of the machine that it ran on.
    """
    example = torch.zeros(TRACED_BATCH, *input_shape)
    write_network(model, {"image": example}, ({0: torch.export.Dim("batch")},), path)


def write_network(
    model: nn.Module, inputs: Mapping[str, torch.Tensor], dynamic: tuple[dict[int, Any], ...], path: Path
) -> None:
    """Writes a network with these named inputs and the output "embedding", and checks the file.

    Args:
        model: Takes the inputs in this order.
        inputs: Examples to trace it with; no axis that may vary has the size 1.
        dynamic: Which axes of each input may vary, with their torch.export.Dim.
        path: The file.
    """
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch warns of its own use of its old names
        warnings.filterwarnings("ignore", "# The axis name", UserWarning)  # two inputs may share an axis
        program = torch.onnx.export(
            model,
            tuple(inputs.values()),
            dynamo=True,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=[_OUTPUT],
            dynamic_shapes=dynamic,
            external_data=False,
            verbose=False,
        )
    if program is None:
        raise RuntimeError("Expected torch to export a program, got none")
    proto = program.model_proto
    del program
    rename(proto, _OUTPUT, "embedding")
    strip_notes(proto)
    path.write_bytes(proto.SerializeToString(deterministic=True))
    del proto
    onnx.checker.check_model(str(path), full_check=True)  # a message would be copied: large networks fit only once


def parity(model: nn.Module, path: Path, batches: Sequence[NDArray[np.float32]]) -> float:
    """Returns the largest absolute difference between torch's embeddings and the file's, over all batches."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    differences = []
    for batch in batches:
        with torch.inference_mode():
            expected = model(torch.from_numpy(batch)).numpy()
        found = session.run(["embedding"], {"image": batch})[0]
        differences.append(np.abs(expected - found).max())
    return float(np.max(differences))  # NaN stays NaN


def strip_notes(proto: onnx.ModelProto) -> None:
    """Takes out the exporter's notes, which hold the source paths of the machine that it ran on."""
    graph = proto.graph
    noted: list[Any] = [proto, graph, *graph.node, *graph.initializer, *graph.input, *graph.output, *graph.value_info]
    for part in noted:
        del part.metadata_props[:]
        part.doc_string = ""
    graph.name = "encoder"
