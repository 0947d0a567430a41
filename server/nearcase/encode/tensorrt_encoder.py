"""TensorRT behind the Encoder protocol: an engine that was built on this GPU, one recorded graph for each batch size.

Written for TensorRT 11, where every network is strongly typed: precision is what the ONNX file says. The engine is
built by `nearcase-models engine build`, never by a request.
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
from nearcase.encode.engine_files import EngineKey, read_engine
from nearcase.encode.session import INPUT, OUTPUT
from nearcase.errors import Unready

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nearcase.encode.cuda_memory import CudaMemory


@dataclass(frozen=True, slots=True)
class _Lane:
    """The buffers of one batch size, and its context or recorded graph."""

    input: NDArray[np.float32]  # pinned
    output: NDArray[np.float32]  # pinned
    input_address: int  # on the GPU
    output_address: int
    context: Any  # IExecutionContext
    graph: int | None


class TensorRtEncoder:
    """An encoder's folder run by TensorRT on one GPU; calls from many threads take turns.

    Args:
        folder: The encoder: encoder.onnx, card.toml, golden.npz.
        engines: Folder of the engines that were built on this machine.
        memory: The GPU.
        tensorrt: The module; None imports it.
        buckets: The batch sizes that the engine was built with.
        graphs: Record and replay the launches of each size.

    Raises:
        Unready: TensorRT is absent, there is no sound engine for this GPU, or TensorRT refuses it.
    """

    def __init__(
        self,
        folder: Path,
        engines: Path,
        memory: CudaMemory,
        *,
        tensorrt: Any = None,
        buckets: tuple[int, ...] = BUCKETS,
        graphs: bool = True,
    ) -> None:
        self._card = read_card(folder)
        self._memory, self._buckets, self._turn = memory, buckets, threading.Lock()
        module = tensorrt or import_tensorrt()
        key = engine_key(self._card, module, memory, buckets)
        self._runtime = f"TensorRT {key.tensorrt} {key.precision} on {key.gpu}"
        self._logger = module.Logger(module.Logger.ERROR)
        self._loader = module.Runtime(self._logger)  # must outlive the engine
        self._engine = self._loader.deserialize_cuda_engine(read_engine(engines, key))
        if self._engine is None:
            raise Unready("Expected TensorRT to load the engine, got none; build it again", reason="ENGINE_UNSAFE")
        self._stream = memory.stream()
        self._lanes = {size: self._lane(number, size, graphs) for number, size in enumerate(buckets)}

    @property
    def card(self) -> Card:
        """What this encoder is, and how its input is made."""
        return self._card

    @property
    def runtime(self) -> str:
        """What runs it now: "TensorRT 11.4.0 fp16 on NVIDIA H100 80GB HBM3"."""
        return self._runtime

    def embed(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns (N, D) unit embeddings of (N, 3, size, size) normalised images; blocks, and is safe in threads.

        Raises:
            InvalidInput: The batch has another shape or type, or values that are not finite.
            Unready: The GPU or the engine failed.
        """
        check_batch(batch, self._card)
        with self._turn:
            vectors = in_pieces(batch, self._buckets, self._run)
        check_embeddings(vectors, len(batch), self._card)
        return vectors

    def _run(self, batch: NDArray[np.float32], bucket: int) -> NDArray[np.float32]:
        lane = self._lanes[bucket]
        lane.input[: len(batch)] = batch
        lane.input[len(batch) :] = 0.0  # padding never holds another caller's image
        if lane.graph is None:
            self._queue(lane)
        else:
            self._memory.launch(lane.graph, self._stream)
        self._memory.wait(self._stream)
        return lane.output[: len(batch)].copy()

    def _lane(self, profile: int, size: int, graphs: bool) -> _Lane:
        """Each size has a context of its own: a recorded graph belongs to one context, profile and set of addresses."""
        memory, shape = self._memory, (size, *self._card.recipe.input_shape)
        host_in, host_out = memory.pinned(shape), memory.pinned((size, self._card.dimension))
        context = self._engine.create_execution_context()
        if context is None:
            raise Unready("Expected TensorRT to make a context, got none: out of memory?", reason="GPU_FAILED")
        lane = _Lane(host_in, host_out, memory.device(host_in.nbytes), memory.device(host_out.nbytes), context, None)
        _expect(context.set_optimization_profile_async(profile, self._stream), f"profile {profile}")
        _expect(context.set_input_shape(INPUT, host_in.shape), f"a batch of {size}")
        _expect(context.set_tensor_address(INPUT, lane.input_address), "the input's address")
        _expect(context.set_tensor_address(OUTPUT, lane.output_address), "the output's address")
        self._queue(lane)  # the first run sets up what may not happen while recording
        memory.wait(self._stream)
        return self._recorded(lane) if graphs else lane

    def _recorded(self, lane: _Lane) -> _Lane:
        self._memory.begin_recording(self._stream)
        self._queue(lane)
        graph = self._memory.end_recording(self._stream)
        addresses = (lane.input_address, lane.output_address)
        return _Lane(lane.input, lane.output, *addresses, lane.context, graph)

    def _queue(self, lane: _Lane) -> None:
        self._memory.to_device(lane.input_address, lane.input, self._stream)
        _expect(lane.context.execute_async_v3(self._stream), "a run")
        self._memory.to_host(lane.output, lane.output_address, self._stream)


def engine_key(card: Card, tensorrt: Any, memory: CudaMemory, buckets: tuple[int, ...]) -> EngineKey:
    """Returns what the engine of this card on this GPU is found by."""
    gpu = memory.gpu()
    return EngineKey(
        onnx_sha256=card.sha256,
        tensorrt=str(tensorrt.__version__),
        gpu=gpu.name,
        compute_capability=gpu.compute_capability,
        driver=gpu.driver // 1000,
        precision=card.precision,
        buckets=buckets,
    )


def import_tensorrt() -> Any:
    """Returns the module tensorrt.

    Raises:
        Unready: It is not installed, or its libraries are absent.
    """
    try:
        import tensorrt
    except Exception as error:  # a broken install raises what it likes
        raise Unready(
            "Expected TensorRT, got none that loads; install nearcase[tensorrt] with NVIDIA's package index",
            reason="RUNTIME_PACKAGES",
        ) from error
    return tensorrt


def _expect(done: bool, what: str) -> None:
    if not done:
        raise Unready(f"Expected TensorRT to accept {what}, got a refusal", reason="ENCODER_FAILED")
