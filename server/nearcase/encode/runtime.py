"""Which runtime an encoder runs on: what was asked for, or an error that says why not.

There is no silent fallback. Where the operator allows one, every surface that names the runtime says that it is one.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nearcase.encode.golden import GOLDEN_LIMIT, verify_golden
from nearcase.encode.onnx_cpu import CpuEncoder
from nearcase.errors import Unready

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from nearcase.encode.base import Encoder
    from nearcase.encode.card import Card

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RuntimeChoice:
    """What runs the encoder."""

    name: str = "cpu"  # cpu, cuda or tensorrt
    threads: int = 1  # cores that one call on the CPU may use
    graphs: bool = False  # record and replay launches, on a GPU
    engines: Path = Path("engines")  # where TensorRT engines are
    gpu: int = 0
    allow_cpu: bool = False  # run on the CPU where the GPU can not be had, and say so everywhere


@dataclass(frozen=True, slots=True)
class FallbackEncoder:
    """An encoder on the CPU because the GPU that was asked for can not be had."""

    encoder: CpuEncoder
    wanted: str

    @property
    def card(self) -> Card:
        """What this encoder is, and how its input is made."""
        return self.encoder.card

    @property
    def runtime(self) -> str:
        """What runs it now, and what does not."""
        return f"{self.encoder.runtime} (fallback: {self.wanted} can not be had)"

    def embed(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """As CpuEncoder.embed."""
        return self.encoder.embed(batch)


def open_encoder(folder: Path, choice: RuntimeChoice = RuntimeChoice()) -> Encoder:
    """Returns the encoder of a folder, once it reproduces its golden embeddings.

    Raises:
        Unready: It can not be loaded, the runtime can not be had, or its embeddings are off; the message says how far.
    """
    encoder = _open(folder, choice)
    cosine = verify_golden(encoder)
    if not cosine >= GOLDEN_LIMIT:  # true for NaN
        raise Unready(
            f"Expected {encoder.card.name} to reproduce its golden embeddings with cosine >= {GOLDEN_LIMIT}, "
            f"got {cosine:.6f} on {encoder.runtime}",
            reason="GOLDEN_MISMATCH",
        )
    return encoder


def _open(folder: Path, choice: RuntimeChoice) -> Encoder:
    if choice.name == "cpu":
        return CpuEncoder(folder, threads=choice.threads)
    try:
        return _on_gpu(folder, choice)
    except Unready as error:
        if not choice.allow_cpu:
            raise
        log.warning("running on the CPU, because %s can not be had: %s", choice.name, error)
        return FallbackEncoder(CpuEncoder(folder, threads=choice.threads), choice.name)


def _on_gpu(folder: Path, choice: RuntimeChoice) -> Encoder:
    from nearcase.encode.cuda_memory import CudaRuntime

    memory = CudaRuntime(choice.gpu)
    if choice.name == "tensorrt":
        from nearcase.encode.tensorrt_encoder import TensorRtEncoder

        return TensorRtEncoder(folder, choice.engines, memory, graphs=choice.graphs)
    from nearcase.encode.onnx_cuda import CudaEncoder

    return CudaEncoder(folder, memory, graphs=choice.graphs)
