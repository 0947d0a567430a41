"""The default encoder on onnxruntime: the batch law, the golden test and its power, and what is refused at start."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as PillowImage
from tiny_encoders import picture_recipe

from nearcase.encode.base import Encoder
from nearcase.encode.golden import GOLDEN_LIMIT, read_golden, verify_golden
from nearcase.encode.inputs import golden_frame, to_batch
from nearcase.encode.onnx_cpu import CpuEncoder
from nearcase.encode.preprocess import normalise
from nearcase.encode.runtime import open_encoder
from nearcase.errors import InvalidInput, Unready

Vectors = NDArray[np.float32]


@pytest.fixture(scope="module")
def encoder(encoder_folder: Path) -> Encoder:
    return open_encoder(encoder_folder)


@pytest.fixture(scope="module")
def batch(encoder: CpuEncoder) -> Vectors:
    """The golden images and a plain grey one, ready to embed."""
    recipe = picture_recipe(encoder.card)
    images = [*read_golden(encoder.card).images, np.full((9, 9), 128, np.uint8)]
    return np.concatenate([to_batch(golden_frame(image, recipe)[None], recipe) for image in images])


@pytest.fixture
def copy(encoder_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(encoder_folder, tmp_path / "copy"))


def cosines(a: Vectors, b: Vectors) -> NDArray[np.float64]:
    products: NDArray[np.float64] = np.sum(a.astype(np.float64) * b, axis=1)
    return products


def test_an_image_embeds_the_same_alone_and_in_any_batch(encoder: Encoder, batch: Vectors) -> None:
    assert len(batch) == 5
    alone = np.concatenate([encoder.embed(batch[i : i + 1]) for i in range(5)])
    for order in ([0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [2, 2, 2], [3, 1]):
        together = encoder.embed(batch[order])
        assert cosines(together, alone[order]).min() > 0.9999


def test_an_image_embeds_the_same_twice_to_the_last_bit(encoder: Encoder, batch: Vectors) -> None:
    np.testing.assert_array_equal(encoder.embed(batch), encoder.embed(batch.copy()))


def test_embeddings_are_unit_and_differ(encoder: Encoder, batch: Vectors) -> None:
    vectors = encoder.embed(batch)
    assert vectors.shape == (5, encoder.card.dimension)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
    assert (vectors @ vectors.T - np.eye(5)).max() < 0.9


def test_many_threads_get_their_own_answers(encoder: Encoder, batch: Vectors) -> None:
    expected = [encoder.embed(batch[i : i + 1]) for i in range(5)]
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda i: encoder.embed(batch[i % 5 : i % 5 + 1]), range(60)))
    for i, vectors in enumerate(found):
        np.testing.assert_array_equal(vectors, expected[i % 5])


def test_a_batch_that_is_a_view_embeds_like_its_copy(encoder: Encoder, batch: Vectors) -> None:
    flipped = batch[:, :, :, ::-1]
    np.testing.assert_array_equal(encoder.embed(flipped), encoder.embed(flipped.copy()))


def test_the_runtime_is_named(encoder: Encoder) -> None:
    assert re.fullmatch(r"onnxruntime \d+\.\d+\.\d+ CPU", encoder.runtime)


@pytest.mark.parametrize(
    "shape", [(0, 3, 224, 224), (3, 224, 224), (1, 224, 224, 3), (1, 3, 224, 225), (1, 1, 224, 224)]
)
def test_another_shape_is_the_callers_fault(encoder: Encoder, shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidInput, match=re.escape(f"{shape}")):
        encoder.embed(np.zeros(shape, np.float32))


def test_another_type_is_the_callers_fault(encoder: Encoder, batch: Vectors) -> None:
    with pytest.raises(InvalidInput, match="float64"):
        encoder.embed(batch.astype(np.float64))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_poisoned_image_is_refused_and_hurts_no_other(encoder: Encoder, batch: Vectors, value: float) -> None:
    before = encoder.embed(batch)
    poisoned = batch.copy()
    poisoned[2, 0, 0, 0] = value
    with pytest.raises(InvalidInput, match="finite"):
        encoder.embed(poisoned)
    np.testing.assert_array_equal(encoder.embed(batch), before)


def test_the_golden_embeddings_reproduce(encoder: Encoder) -> None:
    assert verify_golden(encoder) > 0.999999


def test_the_golden_test_notices_another_resizing(encoder: Encoder) -> None:
    golden = read_golden(encoder.card)
    recipe = picture_recipe(encoder.card)
    size = (recipe.size_px, recipe.size_px)
    for filter_ in (PillowImage.Resampling.NEAREST, PillowImage.Resampling.BILINEAR, PillowImage.Resampling.LANCZOS):
        small = [PillowImage.fromarray(image).convert("RGB").resize(size, filter_) for image in golden.images]
        found = encoder.embed(normalise(np.stack([np.asarray(each) for each in small]), recipe))
        assert cosines(found, golden.embeddings).min() < GOLDEN_LIMIT, f"filter {filter_.name} went unnoticed"


def test_a_golden_mismatch_keeps_the_encoder_from_opening_and_says_how_far_it_is(copy: Path) -> None:
    with np.load(copy / "golden.npz") as arrays:
        stored = dict(arrays)
    other = np.roll(stored["embeddings"], 1, axis=0)
    expected = cosines(stored["embeddings"], other).min()
    np.savez(copy / "golden.npz", **{**stored, "embeddings": other})
    with pytest.raises(Unready) as refused:
        open_encoder(copy)
    figure = re.search(r"cosine >= 0.9999, got (-?\d\.\d+) on onnxruntime", str(refused.value))
    assert figure is not None
    assert float(figure[1]) == pytest.approx(expected, abs=1e-5)
    assert refused.value.reason == "GOLDEN_MISMATCH"


def test_a_card_with_another_normalisation_does_not_open(copy: Path) -> None:
    card = (copy / "card.toml").read_text()
    (copy / "card.toml").write_text(card.replace("std = [0.229, 0.224, 0.225]", "std = [0.5, 0.5, 0.5]"))
    with pytest.raises(Unready, match="golden"):
        open_encoder(copy)


@pytest.mark.parametrize("damage", ["text", "empty", "pickle", "lengths", "dimension", "no image", "none"])
def test_a_damaged_golden_file_is_refused(copy: Path, damage: str) -> None:
    with np.load(copy / "golden.npz") as arrays:
        stored = dict(arrays)
    embeddings = stored["embeddings"]
    match damage:
        case "text" | "empty":
            (copy / "golden.npz").write_bytes(b"golden" if damage == "text" else b"")
        case "pickle":
            np.savez(copy / "golden.npz", allow_pickle=True, embeddings=np.array([{}], object))
        case "no image":
            np.savez(copy / "golden.npz", embeddings=embeddings)
        case "none":
            np.savez(copy / "golden.npz", embeddings=embeddings[:0])
        case _:
            changed = embeddings * 2 if damage == "lengths" else embeddings[:, :-1]
            np.savez(copy / "golden.npz", **{**stored, "embeddings": changed})
    with pytest.raises(Unready) as refused:
        open_encoder(copy)
    assert refused.value.reason == "GOLDEN_INVALID"


def test_one_changed_byte_of_the_network_is_refused(copy: Path) -> None:
    network = bytearray((copy / "encoder.onnx").read_bytes())
    network[len(network) // 2] ^= 1
    (copy / "encoder.onnx").write_bytes(network)
    with pytest.raises(Unready, match="sha256"):
        open_encoder(copy)


def replace_network(folder: Path, network: bytes) -> None:
    """Puts another network under the card, with its own SHA-256."""
    (folder / "encoder.onnx").write_bytes(network)
    card = re.sub(
        r'sha256 = "\w+"', f'sha256 = "{hashlib.sha256(network).hexdigest()}"', (folder / "card.toml").read_text()
    )
    (folder / "card.toml").write_text(card)


@pytest.mark.parametrize("kind", ["empty", "text", "cut"])
def test_what_is_no_network_is_refused_in_one_line(copy: Path, kind: str) -> None:
    whole = (copy / "encoder.onnx").read_bytes()
    replace_network(copy, {"empty": b"", "text": b"no network at all", "cut": whole[: len(whole) // 2]}[kind])
    with pytest.raises(Unready) as refused:
        open_encoder(copy)
    assert refused.value.reason == "ONNX_INVALID"
    assert "\n" not in str(refused.value)


def test_a_card_of_another_dimension_is_refused(copy: Path) -> None:
    card = (copy / "card.toml").read_text()
    (copy / "card.toml").write_text(card.replace("dimension = 1280", "dimension = 1024"))
    with pytest.raises(Unready, match="1280"):
        CpuEncoder(copy)


def test_embeddings_that_are_not_unit_are_refused(copy: Path) -> None:
    onnx = pytest.importorskip(
        "onnx", reason="onnx builds the small network of this test: pip install nearcase[models]"
    )
    replace_network(copy, pooling_network(onnx, scale=2.0))
    with pytest.raises(Unready, match="length 1"):
        open_encoder(copy)


def test_embeddings_that_are_not_numbers_are_refused(copy: Path) -> None:
    onnx = pytest.importorskip(
        "onnx", reason="onnx builds the small network of this test: pip install nearcase[models]"
    )
    replace_network(copy, pooling_network(onnx, scale=float("nan")))
    with pytest.raises(Unready, match="got nan"):
        open_encoder(copy)


def pooling_network(onnx, scale: float) -> bytes:  # type: ignore[no-untyped-def]
    """image -> scale in each of 1280 elements."""
    helper, number = onnx.helper, onnx.TensorProto.FLOAT
    weights = helper.make_tensor("weights", number, [3, 1280], [0.0] * 3840)
    bias = helper.make_tensor("bias", number, [1280], [scale] * 1280)
    nodes = [
        helper.make_node("ReduceMean", ["image", "axes"], ["pooled"], keepdims=0),
        helper.make_node("Gemm", ["pooled", "weights", "bias"], ["embedding"]),
    ]
    axes = helper.make_tensor("axes", onnx.TensorProto.INT64, [2], [2, 3])
    image = helper.make_tensor_value_info("image", number, ["n", 3, 224, 224])
    embedding = helper.make_tensor_value_info("embedding", number, ["n", 1280])
    graph = helper.make_graph(nodes, "pooling", [image], [embedding], [weights, bias, axes])
    network: bytes = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10
    ).SerializeToString()
    return network


def test_two_runtime_packages_are_refused(
    encoder_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = tmp_path / "onnxruntime_gpu-1.31.1.dist-info"
    record.mkdir()
    (record / "METADATA").write_text("Metadata-Version: 2.1\nName: onnxruntime-gpu\nVersion: 1.31.1\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(Unready, match="onnxruntime and onnxruntime-gpu") as refused:
        CpuEncoder(encoder_folder)
    assert refused.value.reason == "RUNTIME_PACKAGES"


def test_opening_prints_nothing_and_starts_no_thread(encoder_folder: Path) -> None:
    script = (
        "import sys, os, numpy, onnxruntime; from pathlib import Path\n"
        "from nearcase.encode.runtime import open_encoder\n"
        "before = len(os.listdir('/proc/self/task'))\n"
        "encoder = open_encoder(Path(sys.argv[1]))\n"
        "assert len(os.listdir('/proc/self/task')) == before, 'threads were started'\n"
        "assert 'torch' not in sys.modules\n"
    )
    command = [sys.executable, "-W", "error", "-c", script, str(encoder_folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
