"""Building TensorRT engines: on the GPU that will run them, gated before they are kept.

Written against the API of TensorRT 11, where networks are strongly typed and precision is that of the ONNX file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nearcase.encode.buckets import BUCKETS
from nearcase.encode.card import Card, read_card
from nearcase.encode.engine_files import builder_lock, write_engine, write_whole
from nearcase.encode.golden import GOLDEN_LIMIT, verify_golden
from nearcase.encode.onnx_file import refuse_external_data
from nearcase.encode.session import INPUT
from nearcase.encode.tensorrt_encoder import TensorRtEncoder, engine_key, import_tensorrt
from nearcase.errors import Unready

if TYPE_CHECKING:
    from nearcase.encode.cuda_memory import CudaMemory

WORKSPACE_BYTES = 8 * 2**30
"""Most memory that a tactic may use while it is timed and run."""


@dataclass(frozen=True, slots=True)
class Built:
    """An engine that passed its gate."""

    file: Path
    cosine: float  # least, with the golden embeddings


def build_engine(
    folder: Path,
    engines: Path,
    memory: CudaMemory,
    *,
    tensorrt: Any = None,
    buckets: tuple[int, ...] = BUCKETS,
    say: Callable[[str], None] = lambda _: None,
) -> Built:
    """Builds the engine of an encoder for this GPU; takes minutes.

    Args:
        folder: The encoder.
        engines: Where engines are kept.
        memory: The GPU.
        tensorrt: The module; None imports it.
        buckets: Batch sizes, each with a profile of its own.
        say: Told of each step.

    Raises:
        Unready: TensorRT refuses the network, another builder is at work, or the engine does not give the golden
            embeddings; then no engine is left.
    """
    card = read_card(folder)
    refuse_external_data(card.onnx_path)
    module = tensorrt or import_tensorrt()
    key = engine_key(card, module, memory, buckets)
    with builder_lock(engines):
        say(f"building for {key.gpu} with TensorRT {key.tensorrt}, batches {', '.join(map(str, buckets))}")
        file = write_engine(engines, key, _serialized(module, card, engines / "timing.cache", buckets))
        try:
            say("comparing with the golden embeddings")
            cosine = _gate(TensorRtEncoder(folder, engines, memory, tensorrt=module, buckets=buckets))
        except BaseException:
            for kept in (file, file.with_suffix(".json")):
                kept.unlink(missing_ok=True)
            raise
    return Built(file, cosine)


def _gate(encoder: TensorRtEncoder) -> float:
    cosine = verify_golden(encoder)
    if not cosine >= GOLDEN_LIMIT:  # true for NaN
        raise Unready(
            f"Expected an engine with golden embeddings at cosine >= {GOLDEN_LIMIT}, got {cosine:.6f}",
            reason="GOLDEN_MISMATCH",
        )
    return cosine


def _serialized(module: Any, card: Card, timing_cache: Path, buckets: tuple[int, ...]) -> bytes:
    logger = module.Logger(module.Logger.WARNING)
    builder = module.Builder(logger)
    network = builder.create_network(0)
    parser = module.OnnxParser(network, logger)
    if not parser.parse(card.onnx_path.read_bytes()):
        raise Unready(f"Expected TensorRT to read {card.name}, got: {_complaint(parser)}", reason="ONNX_INVALID")
    config = builder.create_builder_config()
    config.set_memory_pool_limit(module.MemoryPoolType.WORKSPACE, WORKSPACE_BYTES)
    cache = config.create_timing_cache(timing_cache.read_bytes() if timing_cache.is_file() else b"")
    config.set_timing_cache(cache, False)
    for size in buckets:
        shape = (size, *card.recipe.input_shape)
        profile = builder.create_optimization_profile()
        profile.set_shape(INPUT, shape, shape, shape)
        config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise Unready(f"Expected TensorRT to build {card.name}, got nothing", reason="ENGINE_BUILD")
    write_whole(timing_cache, bytes(config.get_timing_cache().serialize()))
    return bytes(engine)


def _complaint(parser: Any) -> str:
    return "; ".join(str(parser.get_error(number).desc()) for number in range(min(parser.num_errors, 3)))
