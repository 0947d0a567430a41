"""onnxruntime on a GPU behind the Encoder protocol: fixed batch sizes, bound buffers, and no CPU behind it.

Each size has its own buffers at fixed addresses: a pinned one that the image is copied to, one on the GPU, and one for
the embeddings. With `graphs`, the launches of a size are recorded once and replayed, which at batch 1 is most of the
time.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nearcase.encode.buckets import BUCKETS, in_pieces
from nearcase.encode.card import Card, read_card
from nearcase.encode.contract import check_batch, check_embeddings
from nearcase.encode.onnx_file import refuse_external_data
from nearcase.encode.session import CUDA, INPUT, OUTPUT, brief, onnxruntime_version, open_session
from nearcase.errors import Unready

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nearcase.encode.cuda_memory import CudaMemory


@dataclass(frozen=True, slots=True)
class _Bound:
    """The buffers of one batch size, and their binding to the session."""

    host: NDArray[np.float32]  # pinned
    input: Any  # OrtValue on the device
    output: Any
    binding: Any
    options: Any  # RunOptions


class CudaEncoder:
    """An encoder's folder run by onnxruntime on one GPU; calls from many threads take turns.

    Args:
        folder: The encoder: encoder.onnx, card.toml, golden.npz.
        memory: Where pinned buffers come from.
        buckets: The batch sizes, ascending; others are padded to the next, larger ones are cut.
        graphs: Record and replay the launches of each size.
        provider: onnxruntime's; another than CUDA is for machines without a GPU, where the same code is checked.

    Raises:
        Unready: The folder is not a valid encoder, or the GPU can not be had.
    """

    def __init__(
        self,
        folder: Path,
        memory: CudaMemory,
        *,
        buckets: tuple[int, ...] = BUCKETS,
        graphs: bool = False,
        provider: str = CUDA,
    ) -> None:
        self._card = read_card(folder)
        refuse_external_data(self._card.onnx_path)
        self._device = "cuda" if provider == CUDA else "cpu"
        options = {"enable_cuda_graph": str(int(graphs)), "use_tf32": "0"} if provider == CUDA else {}
        self._session = open_session(self._card, provider, options)
        self._runtime = f"onnxruntime {onnxruntime_version()} {self._device.upper()} on {memory.gpu().name}"
        self._buckets, self._turn = buckets, threading.Lock()
        self._bound = {size: self._bind(size, memory, graphs) for size in buckets}

    @property
    def card(self) -> Card:
        """What this encoder is, and how its input is made."""
        return self._card

    @property
    def runtime(self) -> str:
        """What runs it now: "onnxruntime 1.31.1 CUDA on NVIDIA H100 80GB HBM3"."""
        return self._runtime

    def embed(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns (N, D) unit embeddings of (N, 3, size, size) normalised images; blocks, and is safe in threads.

        Raises:
            InvalidInput: The batch has another shape or type, or values that are not finite.
            Unready: The GPU or the network failed.
        """
        check_batch(batch, self._card)
        with self._turn:
            vectors = in_pieces(batch, self._buckets, self._run)
        check_embeddings(vectors, len(batch), self._card)
        return vectors

    def _run(self, batch: NDArray[np.float32], bucket: int) -> NDArray[np.float32]:
        bound = self._bound[bucket]
        bound.host[: len(batch)] = batch
        bound.host[len(batch) :] = 0.0  # padding never holds another caller's image
        try:
            bound.input.update_inplace(bound.host)
            self._session.run_with_iobinding(bound.binding, bound.options)
            vectors: NDArray[np.float32] = bound.output.numpy()[: len(batch)].copy()
        except Exception as error:  # onnxruntime's own error types share no base class
            raise Unready(f"Expected {self._card.name} to run, got: {brief(error)}", reason="ENCODER_FAILED") from error
        return vectors

    def _bind(self, size: int, memory: CudaMemory, graphs: bool) -> _Bound:
        import onnxruntime

        shape = (size, *self._card.recipe.input_shape)
        host = memory.pinned(shape)
        make = onnxruntime.OrtValue.ortvalue_from_shape_and_type
        inputs = make(list(shape), np.float32, self._device, 0)
        outputs = make([size, self._card.dimension], np.float32, self._device, 0)
        binding = self._session.io_binding()
        binding.bind_ortvalue_input(INPUT, inputs)
        binding.bind_ortvalue_output(OUTPUT, outputs)
        options = onnxruntime.RunOptions()
        if graphs and self._device == "cuda":
            options.add_run_config_entry("gpu_graph_id", str(size))  # one recorded graph for each size
        return _Bound(host, inputs, outputs, binding, options)
