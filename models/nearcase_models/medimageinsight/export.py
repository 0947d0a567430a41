"""Both towers -> `encoder.onnx` and `text.onnx`, each compared with torch at sizes that it was not traced with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from tokenizers import Tokenizer
from torch import Tensor

from nearcase.errors import InvalidInput
from nearcase_models.export import export_onnx, parity, write_network
from nearcase_models.medimageinsight.model import ImageEncoder, TextEncoder

PARITY_LIMIT = 1e-4
"""Largest difference of any element of a unit embedding; a cosine of 0.9999 allows a hundred times as much."""

BATCHES = (1, 3)
"""Images in a batch; the network is traced with two."""

_TEXT_BATCH, _TEXT_TOKENS = 2, 11  # what the text tower is traced with: two texts of eleven tokens
_TEXTS = ((("",), 2), (("x-ray", "ct " * 99, ""), 0), (("mr of the head", "us"), 17))
"""Texts that torch and the file are compared on, and the length that they are padded to; 0 is the context."""


def export_image(model: ImageEncoder, input_shape: tuple[int, ...], path: Path) -> float:
    """Writes the image tower and returns its largest difference from torch.

    Raises:
        InvalidInput: It is not at parity.
    """
    export_onnx(model, input_shape, path)
    rng = np.random.default_rng(4)
    return _at_parity(parity(model, path, [rng.standard_normal((n, *input_shape), np.float32) for n in BATCHES]))


def export_text(model: TextEncoder, tokenizer: Tokenizer, context: int, path: Path) -> float:
    """Writes the text tower, from "ids" and "mask" (texts, tokens), and returns its largest difference from torch.

    Raises:
        InvalidInput: It is not at parity.
    """
    ids = torch.arange(_TEXT_BATCH * _TEXT_TOKENS).reshape(_TEXT_BATCH, _TEXT_TOKENS)
    axes = {0: torch.export.Dim("texts"), 1: torch.export.Dim("tokens", min=2, max=context)}
    write_network(model, {"ids": ids, "mask": torch.ones_like(ids)}, (axes, axes), path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    differences = []
    for texts, tokens in _TEXTS:
        padded, mask = pad([tokenizer.encode(text).ids for text in texts], tokens or context)
        with torch.inference_mode():
            expected = model(padded, mask).numpy()
        (found,) = session.run(["embedding"], {"ids": padded.numpy(), "mask": mask.numpy()})
        differences.append(np.abs(expected - found).max())
    return _at_parity(float(np.max(differences)))  # NaN stays NaN


def pad(texts: Sequence[Sequence[int]], tokens: int) -> tuple[Tensor, Tensor]:
    """Returns ids and mask (texts, tokens), padded with the end token as CLIP's tokenizer does."""
    ids = torch.tensor([[*text, *[text[-1]] * (tokens - len(text))] for text in texts])
    mask = torch.tensor([[1] * len(text) + [0] * (tokens - len(text)) for text in texts])
    return ids, mask


def _at_parity(difference: float) -> float:
    if not difference <= PARITY_LIMIT:
        raise InvalidInput(f"Expected parity with torch <= {PARITY_LIMIT}, got {difference:.2e}")
    return difference
