"""A GPU made of host memory, and a TensorRT that runs the same network on the CPU: both record what they are told.

They refuse what the real ones refuse: shapes outside a profile, addresses that were not set, a context that is given
two profiles, work on a stream that nobody waited for. What they can not show is speed, and precision on hardware.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from nearcase.encode.cuda_memory import Gpu


@dataclass
class HostGpu:
    """CudaMemory in host memory: what is queued runs when the stream is waited for, in order."""

    name: str = "Host GPU"
    driver: int = 13000
    calls: list[str] = field(default_factory=list)
    _queue: list[Callable[[], None]] = field(default_factory=list)
    _recording: list[Callable[[], None]] | None = None
    _graphs: list[list[Callable[[], None]]] = field(default_factory=list)
    _kept: list[NDArray[np.float32]] = field(default_factory=list)

    def gpu(self) -> Gpu:
        return Gpu(self.name, "9.0", self.driver)

    def stream(self) -> int:
        return 7

    def pinned(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        self._kept.append(np.zeros(shape, np.float32))
        return self._kept[-1]

    def device(self, size_bytes: int) -> int:
        self._kept.append(np.full(size_bytes // 4, np.nan, np.float32))
        return int(self._kept[-1].ctypes.data)

    def to_device(self, address: int, array: NDArray[np.float32], stream: int) -> None:
        self.queue("to device", lambda: ctypes.memmove(address, array.ctypes.data, array.nbytes))

    def to_host(self, array: NDArray[np.float32], address: int, stream: int) -> None:
        self.queue("to host", lambda: ctypes.memmove(array.ctypes.data, address, array.nbytes))

    def begin_recording(self, stream: int) -> None:
        self._recording = []

    def end_recording(self, stream: int) -> int:
        assert self._recording
        self._graphs.append(self._recording)
        self._recording = None
        return len(self._graphs) - 1

    def launch(self, graph: int, stream: int) -> None:
        for work in self._graphs[graph]:
            self.queue("graph", work)

    def wait(self, stream: int) -> None:
        self.calls.append("wait")
        while self._queue:
            self._queue.pop(0)()

    def queue(self, name: str, work: Callable[[], Any]) -> None:
        self.calls.append(name if self._recording is None else f"record {name}")
        (self._queue if self._recording is None else self._recording).append(work)


class FakeTensorRt:
    """The part of the module `tensorrt` 11 that nearcase uses; an engine is the ONNX file with its profiles."""

    __version__ = "11.4.0.106"
    MemoryPoolType = SimpleNamespace(WORKSPACE="workspace")

    class Logger:
        ERROR, WARNING = 1, 2

        def __init__(self, severity: int) -> None:
            self.severity = severity

    def __init__(self, gpu: HostGpu, *, spoil: float = 0.0) -> None:
        self.gpu, self.spoil, self.builds = gpu, spoil, 0
        self.caches: list[bytes] = []

    def Builder(  # noqa: N802  TensorRT's name
        self, logger: Logger
    ) -> Any:
        return SimpleNamespace(
            create_network=lambda flags: SimpleNamespace(flags=flags, onnx=b""),
            create_builder_config=self._config,
            create_optimization_profile=lambda: _Profile(),
            build_serialized_network=self._build,
        )

    def OnnxParser(  # noqa: N802  TensorRT's name
        self, network: Any, logger: Logger
    ) -> Any:
        def parse(data: bytes) -> bool:
            network.onnx = data
            return data[:1] == b"\x08"  # every ONNX file starts with its ir_version

        error = SimpleNamespace(desc=lambda: "not a network")
        return SimpleNamespace(parse=parse, num_errors=1, get_error=lambda number: error)

    def Runtime(  # noqa: N802  TensorRT's name
        self, logger: Logger
    ) -> Any:
        return SimpleNamespace(deserialize_cuda_engine=self._engine)

    def _config(self) -> Any:
        config = SimpleNamespace(profiles=[], limits={}, cache=b"")
        config.set_memory_pool_limit = lambda kind, size: config.limits.update({kind: size})
        config.create_timing_cache = self._cache
        config.set_timing_cache = lambda cache, ignore_mismatch: setattr(config, "cache", cache)
        config.get_timing_cache = lambda: SimpleNamespace(serialize=lambda: config.cache + b"timed ")
        config.add_optimization_profile = lambda profile: config.profiles.append(profile.shape)
        return config

    def _cache(self, data: bytes) -> bytes:
        self.caches.append(data)
        return data

    def _build(self, network: Any, config: Any) -> bytes | None:
        self.builds += 1
        if not config.profiles or not config.limits:
            return None
        header = json.dumps({"profiles": config.profiles, "sha": hashlib.sha256(network.onnx).hexdigest()}).encode()
        return len(header).to_bytes(4, "big") + header + bytes(network.onnx)

    def _engine(self, data: bytes) -> Any:
        size = int.from_bytes(data[:4], "big")
        header, onnx = json.loads(data[4 : 4 + size]), data[4 + size :]
        if hashlib.sha256(onnx).hexdigest() != header["sha"]:
            return None
        session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
        return SimpleNamespace(create_execution_context=lambda: _Context(self, session, header["profiles"]))


class _Profile:
    def __init__(self) -> None:
        self.shape: list[int] = []

    def set_shape(self, name: str, least: tuple[int, ...], best: tuple[int, ...], most: tuple[int, ...]) -> None:
        assert name == "image"
        assert least == best == most
        self.shape = list(best)


class _Context:
    def __init__(self, module: FakeTensorRt, session: Any, profiles: list[list[int]]) -> None:
        self._module, self._session, self._profiles = module, session, profiles
        self._profile: int | None = None
        self._shape: tuple[int, ...] = ()
        self._addresses: dict[str, int] = {}

    def set_optimization_profile_async(self, number: int, stream: int) -> bool:
        assert self._profile is None, "one profile for one context: a second one would void its recorded graph"
        self._profile = number
        return number < len(self._profiles)

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self._shape = tuple(shape)
        return self._profile is not None and list(shape) == self._profiles[self._profile]

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        if set(self._addresses) != {"image", "embedding"}:
            return False
        self._module.gpu.queue("run", self._run)
        return True

    def _run(self) -> None:
        batch = _at(self._addresses["image"], self._shape)
        vectors = self._session.run(None, {"image": batch})[0]
        if self._module.spoil:
            noise = np.random.default_rng(0).normal(size=vectors.shape) * self._module.spoil
            vectors = vectors + noise
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        _at(self._addresses["embedding"], vectors.shape)[...] = vectors


def _at(address: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
    count = int(np.prod(shape))
    return np.ctypeslib.as_array((ctypes.c_float * count).from_address(address)).reshape(shape)
