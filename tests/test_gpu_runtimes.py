"""The GPU runtimes on a GPU of host memory: batches, padding, order of copies, recorded graphs, engine files.

None of this has run on hardware here; `make gpu-check` is for that.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_gpu import FakeTensorRt, HostGpu
from numpy.typing import NDArray
from tiny_encoders import picture_recipe

from nearcase.encode.base import Encoder
from nearcase.encode.buckets import bucket_of, pieces
from nearcase.encode.card import read_card
from nearcase.encode.engine_files import EngineKey, builder_lock, read_engine, write_engine
from nearcase.encode.onnx_cpu import CpuEncoder
from nearcase.encode.onnx_cuda import CudaEncoder
from nearcase.encode.preprocess import normalise
from nearcase.encode.runtime import RuntimeChoice, open_encoder
from nearcase.encode.session import CPU
from nearcase.encode.tensorrt_encoder import TensorRtEncoder, engine_key
from nearcase.errors import InvalidInput, Unready
from nearcase_models.engine import build_engine

BUCKETS = (1, 2, 4)


@pytest.fixture(scope="module")
def images(encoder_folder: Path) -> NDArray[np.float32]:
    recipe = picture_recipe(read_card(encoder_folder))
    shape = (11, recipe.size_px, recipe.size_px, 3)
    return normalise(np.random.default_rng(0).integers(0, 256, shape, np.uint8), recipe)


@pytest.fixture(scope="module")
def expected(encoder_folder: Path, images: NDArray[np.float32]) -> NDArray[np.float32]:
    encoder = CpuEncoder(encoder_folder)
    return np.concatenate([encoder.embed(image[None]) for image in images])


@pytest.fixture(params=["cuda", "tensorrt", "tensorrt without graphs"])
def encoder(request: pytest.FixtureRequest, encoder_folder: Path, tmp_path: Path) -> Encoder:
    gpu = HostGpu()
    if request.param == "cuda":
        return CudaEncoder(encoder_folder, gpu, buckets=BUCKETS, provider=CPU)
    module = FakeTensorRt(gpu)
    build_engine(encoder_folder, tmp_path, gpu, tensorrt=module, buckets=BUCKETS)
    graphs = request.param == "tensorrt"
    return TensorRtEncoder(encoder_folder, tmp_path, gpu, tensorrt=module, buckets=BUCKETS, graphs=graphs)


def test_every_batch_size_gives_what_each_image_gives_alone(
    encoder: Encoder, images: NDArray[np.float32], expected: NDArray[np.float32]
) -> None:
    for count in (1, 2, 3, 4, 5, 7, 11, 1):  # padded, whole, cut, and small again after large
        found = encoder.embed(images[:count])
        assert np.sum(found * expected[:count], axis=1).min() > 0.9999, count


def test_many_threads_get_their_own_answers(
    encoder: Encoder, images: NDArray[np.float32], expected: NDArray[np.float32]
) -> None:
    with ThreadPoolExecutor(6) as threads:
        found = list(threads.map(lambda i: encoder.embed(images[i % 11 : i % 11 + 1])[0], range(40)))
    for number, vector in enumerate(found):
        assert vector @ expected[number % 11] > 0.9999


def test_bad_batches_are_refused_before_the_gpu_sees_them(encoder: Encoder, images: NDArray[np.float32]) -> None:
    wrong_type: Any = images[:1].astype(np.float64)
    for bad in (images[:0], images[:1, :, :8], wrong_type, np.full_like(images[:1], np.nan)):
        with pytest.raises(InvalidInput, match="Expected"):
            encoder.embed(bad)


def test_a_replayed_graph_copies_in_runs_and_copies_out(encoder_folder: Path, tmp_path: Path) -> None:
    gpu = HostGpu()
    module = FakeTensorRt(gpu)
    build_engine(encoder_folder, tmp_path, gpu, tensorrt=module, buckets=(1,))
    gpu.calls.clear()
    TensorRtEncoder(encoder_folder, tmp_path, gpu, tensorrt=module, buckets=(1,))
    warm = ["to device", "run", "to host", "wait"]
    assert gpu.calls == [*warm, "record to device", "record run", "record to host"]


def test_the_key_names_everything_an_engine_depends_on() -> None:
    key = EngineKey("a" * 64, "11.4", "H100", "9.0", 13, "fp16", (1, 2))
    others = [
        EngineKey("b" * 64, "11.4", "H100", "9.0", 13, "fp16", (1, 2)),
        EngineKey("a" * 64, "11.5", "H100", "9.0", 13, "fp16", (1, 2)),
        EngineKey("a" * 64, "11.4", "A100", "9.0", 13, "fp16", (1, 2)),
        EngineKey("a" * 64, "11.4", "H100", "8.0", 13, "fp16", (1, 2)),
        EngineKey("a" * 64, "11.4", "H100", "9.0", 12, "fp16", (1, 2)),
        EngineKey("a" * 64, "11.4", "H100", "9.0", 13, "bf16", (1, 2)),
        EngineKey("a" * 64, "11.4", "H100", "9.0", 13, "fp16", (1, 2, 4)),
    ]
    assert len({key.name, *(other.name for other in others)}) == 8


def test_an_engine_of_another_gpu_or_version_is_not_found(encoder_folder: Path, tmp_path: Path) -> None:
    gpu = HostGpu()
    build_engine(encoder_folder, tmp_path, gpu, tensorrt=FakeTensorRt(gpu), buckets=BUCKETS)
    for other in (HostGpu(name="Other GPU"), HostGpu(driver=12080)):
        with pytest.raises(Unready, match="build it on this machine") as refusal:
            TensorRtEncoder(encoder_folder, tmp_path, other, tensorrt=FakeTensorRt(other), buckets=BUCKETS)
        assert refusal.value.reason == "ENGINE_ABSENT"


@pytest.mark.parametrize("damage", ["flipped", "truncated", "no description", "writable", "linked"])
def test_a_damaged_or_unsafe_engine_is_refused(damage: str, encoder_folder: Path, tmp_path: Path) -> None:
    gpu = HostGpu()
    module = FakeTensorRt(gpu)
    built = build_engine(encoder_folder, tmp_path, gpu, tensorrt=module, buckets=BUCKETS).file
    data = bytearray(built.read_bytes())
    if damage == "flipped":
        data[-9] ^= 1
        built.write_bytes(data)
    elif damage == "truncated":
        built.write_bytes(data[:-1])
    elif damage == "no description":
        built.with_suffix(".json").unlink()
    elif damage == "writable":
        built.chmod(0o666)
    else:
        built.rename(tmp_path / "elsewhere")
        built.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Unready) as refusal:
        TensorRtEncoder(encoder_folder, tmp_path, gpu, tensorrt=module, buckets=BUCKETS)
    assert refusal.value.reason == ("ENGINE_ABSENT" if damage == "no description" else "ENGINE_UNSAFE")


def test_an_engine_that_fails_the_gate_is_not_kept(encoder_folder: Path, tmp_path: Path) -> None:
    gpu = HostGpu()
    with pytest.raises(Unready, match="golden embeddings at cosine") as refusal:
        build_engine(encoder_folder, tmp_path, gpu, tensorrt=FakeTensorRt(gpu, spoil=0.01), buckets=(1,))
    assert refusal.value.reason == "GOLDEN_MISMATCH"
    assert not [*tmp_path.glob("*.engine"), *tmp_path.glob("*.json")]


def test_the_timing_cache_is_kept_for_the_next_build(encoder_folder: Path, tmp_path: Path) -> None:
    gpu = HostGpu()
    module = FakeTensorRt(gpu)
    for _ in range(2):
        build_engine(encoder_folder, tmp_path, gpu, tensorrt=module, buckets=(1,))
    assert module.caches == [b"", b"timed "]


def test_two_builders_do_not_share_a_folder(encoder_folder: Path, tmp_path: Path) -> None:
    gpu = HostGpu()
    with builder_lock(tmp_path), pytest.raises(Unready, match="another builder"):
        build_engine(encoder_folder, tmp_path, gpu, tensorrt=FakeTensorRt(gpu), buckets=(1,))


def test_a_build_that_is_killed_leaves_nothing_to_load(encoder_folder: Path, tmp_path: Path) -> None:
    key = engine_key(read_card(encoder_folder), FakeTensorRt(HostGpu()), HostGpu(), (1,))
    (tmp_path / f"{key.name}.engine").write_bytes(b"half")  # the description is written last
    with pytest.raises(Unready, match="got none"):
        read_engine(tmp_path, key)
    write_engine(tmp_path, key, b"whole")
    assert read_engine(tmp_path, key) == b"whole"
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]


@pytest.mark.parametrize("name", ["cuda", "tensorrt"])
def test_without_a_gpu_the_encoder_does_not_open_and_with_leave_it_says_cpu(
    name: str, encoder_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(Unready) as refusal:
        open_encoder(encoder_folder, RuntimeChoice(name))
    assert refusal.value.reason in ("GPU_ABSENT", "RUNTIME_PACKAGES")
    encoder = open_encoder(encoder_folder, RuntimeChoice(name, allow_cpu=True))
    assert f"CPU (fallback: {name} can not be had)" in encoder.runtime
    assert "running on the CPU" in caplog.text


def test_buckets_cover_every_count() -> None:
    assert [bucket_of(count, BUCKETS) for count in (1, 2, 3, 4, 9)] == [1, 2, 4, 4, 4]
    for count in range(1, 30):
        cut = list(pieces(count, BUCKETS))
        assert [first for first, _, _ in cut] + [count] == [0] + [last for _, last, _ in cut]
        assert all(0 < last - first <= bucket for first, last, bucket in cut)
