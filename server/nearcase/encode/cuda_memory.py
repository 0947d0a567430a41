"""The few calls of the CUDA runtime that encoders need, through NVIDIA's own bindings.

A failed call raises Unready with CUDA's name of the error; nothing is ever tried on another device instead.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from nearcase.errors import Unready

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Gpu:
    """What an engine is built for."""

    name: str  # "NVIDIA H100 80GB HBM3"
    compute_capability: str  # "9.0"
    driver: int  # CUDA version of the driver, for example 13000


class CudaMemory(Protocol):
    """Memory, copies and recorded graphs of one GPU; handles and pointers are plain integers."""

    def gpu(self) -> Gpu:
        """Returns which GPU it is."""
        ...

    def stream(self) -> int:
        """Returns a new stream."""
        ...

    def pinned(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Returns zeros in host memory that the GPU reads and writes directly."""
        ...

    def device(self, size_bytes: int) -> int:
        """Returns the address of new memory on the GPU."""
        ...

    def to_device(self, address: int, array: NDArray[np.float32], stream: int) -> None:
        """Queues a copy of a pinned array to the GPU."""
        ...

    def to_host(self, array: NDArray[np.float32], address: int, stream: int) -> None:
        """Queues a copy from the GPU to a pinned array."""
        ...

    def begin_recording(self, stream: int) -> None:
        """Records what is queued on the stream from here on, instead of running it."""
        ...

    def end_recording(self, stream: int) -> int:
        """Returns the recorded graph, ready to be launched again and again."""
        ...

    def launch(self, graph: int, stream: int) -> None:
        """Queues a recorded graph."""
        ...

    def wait(self, stream: int) -> None:
        """Returns when the stream's work is done."""
        ...


class CudaRuntime:
    """One real GPU.

    Args:
        number: Which GPU, from 0.

    Raises:
        Unready: The package cuda-bindings, the driver or the GPU is absent.
    """

    def __init__(self, number: int = 0) -> None:
        try:
            from cuda.bindings import runtime
        except Exception as error:  # a broken install raises what it likes
            raise Unready(
                "Expected the package cuda-bindings, got none that loads; install nearcase[gpu] or nearcase[tensorrt]",
                reason="RUNTIME_PACKAGES",
            ) from error
        self._cuda: Any = runtime
        self._number = number
        try:
            self._call("cudaSetDevice", number)
        except Unready as error:
            raise Unready(f"Expected GPU {number}, got none: {error}", reason="GPU_ABSENT") from error

    def gpu(self) -> Gpu:
        """Returns which GPU it is."""
        properties = self._call("cudaGetDeviceProperties", self._number)
        name = properties.name.decode() if isinstance(properties.name, bytes) else str(properties.name)
        return Gpu(name, f"{properties.major}.{properties.minor}", int(self._call("cudaDriverGetVersion")))

    def stream(self) -> int:
        """Returns a new stream."""
        self._call("cudaSetDevice", self._number)  # the device is a setting of each thread
        return int(self._call("cudaStreamCreateWithFlags", self._cuda.cudaStreamNonBlocking))

    def pinned(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Returns zeros in page-locked host memory, which lives as long as the process."""
        count = int(np.prod(shape))
        address = int(self._call("cudaHostAlloc", 4 * count, self._cuda.cudaHostAllocDefault))
        array = np.ctypeslib.as_array((ctypes.c_float * count).from_address(address)).reshape(shape)
        array[...] = 0.0
        return array

    def device(self, size_bytes: int) -> int:
        """Returns the address of new memory on the GPU, which lives as long as the process."""
        return int(self._call("cudaMalloc", size_bytes))

    def to_device(self, address: int, array: NDArray[np.float32], stream: int) -> None:
        """Queues a copy of a pinned array to the GPU."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call("cudaMemcpyAsync", address, array.ctypes.data, array.nbytes, kind, stream)

    def to_host(self, array: NDArray[np.float32], address: int, stream: int) -> None:
        """Queues a copy from the GPU to a pinned array."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call("cudaMemcpyAsync", array.ctypes.data, address, array.nbytes, kind, stream)

    def begin_recording(self, stream: int) -> None:
        """Records what is queued on the stream from here on, instead of running it."""
        mode = self._cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call("cudaStreamBeginCapture", stream, mode)

    def end_recording(self, stream: int) -> int:
        """Returns the recorded graph, ready to be launched again and again."""
        return int(self._call("cudaGraphInstantiate", self._call("cudaStreamEndCapture", stream), 0))

    def launch(self, graph: int, stream: int) -> None:
        """Queues a recorded graph."""
        self._call("cudaGraphLaunch", graph, stream)

    def wait(self, stream: int) -> None:
        """Returns when the stream's work is done."""
        self._call("cudaStreamSynchronize", stream)

    def _call(self, name: str, *arguments: object) -> Any:
        error, *values = getattr(self._cuda, name)(*arguments)
        if int(error) != 0:
            raise Unready(f"Expected {name} to succeed, got {getattr(error, 'name', error)}", reason="GPU_FAILED")
        return values[0] if values else None
