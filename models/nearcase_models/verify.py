"""Checks of an encoder's folder, one after another: what the server checks at its start, and the laws besides."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nearcase.encode.base import Encoder
from nearcase.encode.card import read_card
from nearcase.encode.golden import GOLDEN_LIMIT, read_golden, verify_golden
from nearcase.encode.inputs import golden_frame, to_batch
from nearcase.encode.onnx_cpu import CpuEncoder
from nearcase.encode.onnx_file import refuse_external_data
from nearcase.encode.text import open_text
from nearcase.errors import NearcaseError

GPU_ONLY = "bf16"


@dataclass(frozen=True, slots=True)
class Step:
    """One check."""

    name: str
    is_good: bool
    told: str


def verify(folder: Path) -> Iterator[Step]:
    """Yields the checks as they are made; after one that fails, those that rest on it are left out."""
    steps: dict[str, Callable[[], str]] = {
        "card and SHA-256": lambda: read_card(folder).identity,
        "no external data": lambda: _external(folder),
        "golden file": lambda: f"{len(read_golden(read_card(folder)).images)} inputs",
    }
    yield from _run(steps)
    try:
        card = read_card(folder)
        if card.precision == GPU_ONLY:
            yield Step("runs here", True, f"{GPU_ONLY} is for GPUs: no CPU runs it, so golden and laws are not checked")
            return
        encoder = CpuEncoder(folder)
    except NearcaseError as error:
        yield Step("loads", False, str(error))
        return
    laws: dict[str, Callable[[], str]] = {
        "golden embeddings": lambda: _golden(encoder),
        "same alone and in a batch": lambda: _batch_law(encoder),
        "same twice": lambda: _twice(encoder),
    }
    if card.text:
        laws["text tower"] = lambda: (
            f"{open_text(card).embed_texts(['chest x-ray']).shape[1]}-d, golden texts reproduced"
        )
    yield from _run(laws)


def _run(steps: dict[str, Callable[[], str]]) -> Iterator[Step]:
    for name, step in steps.items():
        try:
            yield Step(name, True, step())
        except NearcaseError as error:
            yield Step(name, False, str(error))
            return


def _external(folder: Path) -> str:
    refuse_external_data(read_card(folder).onnx_path)
    return "all weights are in encoder.onnx"


def _golden(encoder: CpuEncoder) -> str:
    cosine = verify_golden(encoder)
    if not cosine >= GOLDEN_LIMIT:  # true for NaN
        raise NearcaseError(f"expected cosine >= {GOLDEN_LIMIT}, got {cosine:.6f}")
    return f"least cosine {cosine:.6f} on {encoder.runtime}"


def _batch_law(encoder: Encoder) -> str:
    batch = _inputs(encoder)
    batch = batch if len(batch) > 1 else np.concatenate((batch, 1.0 - batch))
    together = encoder.embed(batch)
    alone = np.concatenate([encoder.embed(batch[place : place + 1]) for place in range(len(batch))])
    cosine = float(np.sum(together.astype(np.float64) * alone, axis=1).min())
    if not cosine >= GOLDEN_LIMIT:
        raise NearcaseError(f"expected cosine >= {GOLDEN_LIMIT} between alone and in a batch, got {cosine:.6f}")
    return f"least cosine {cosine:.6f}, batches of 1 and {len(batch)}; finite, unit length"


def _twice(encoder: Encoder) -> str:
    first = _inputs(encoder)[:1]
    if not np.array_equal(encoder.embed(first), encoder.embed(first)):
        raise NearcaseError("expected the same bits for the same input, got others")
    return "to the last bit"


def _inputs(encoder: Encoder) -> NDArray[np.float32]:
    recipe = encoder.card.recipe
    frames = [golden_frame(image, recipe)[None] for image in read_golden(encoder.card).images]
    return np.concatenate([to_batch(frame, recipe) for frame in frames])
