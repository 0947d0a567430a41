"""Lower precisions: what stays in fp32, the gate and its power, and that what fails is not written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as PillowImage

from nearcase.encode.card import read_card
from nearcase.encode.runtime import open_encoder
from nearcase.errors import InvalidInput, Unready
from nearcase.index.opening import open_index

onnx = pytest.importorskip("onnx", reason="onnx makes the networks of these tests: pip install nearcase[models]")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime runs them: pip install nearcase[cpu]")
export_precision = pytest.importorskip("nearcase_models.precision").export_precision
lowering = pytest.importorskip("nearcase_models.lower")
gate = pytest.importorskip("nearcase_models.gate")

SIDE = 16


def attention() -> Any:
    """LayerNorm, a product, softmax, a product, and the unit length, as in a transformer."""
    rng, helper = np.random.default_rng(0), onnx.helper
    weights = {
        "scale": np.ones(48, np.float32),
        "bias": np.zeros(48, np.float32),
        "first": rng.normal(size=(48, 48)).astype(np.float32) / 7,
        "second": rng.normal(size=(48, 32)).astype(np.float32) / 7,
    }
    nodes = [
        helper.make_node("Reshape", ["image", "shape"], ["tokens"]),
        helper.make_node("LayerNormalization", ["tokens", "scale", "bias"], ["normal"], axis=-1),
        helper.make_node("MatMul", ["normal", "first"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["shares"], axis=-1),
        helper.make_node("Mul", ["shares", "tokens"], ["weighed"]),
        helper.make_node("MatMul", ["weighed", "second"], ["values"]),
        helper.make_node("ReduceMean", ["values", "axes"], ["pooled"], keepdims=0),
        helper.make_node("LpNormalization", ["pooled"], ["embedding"], axis=1, p=2),
    ]
    ends = [
        helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, ["n", 3, SIDE, SIDE]),
        helper.make_tensor_value_info("embedding", onnx.TensorProto.FLOAT, ["n", 32]),
    ]
    stored = [onnx.numpy_helper.from_array(value, name) for name, value in weights.items()]
    shapes = {"shape": [0, 16, 48], "axes": [1]}
    stored += [onnx.numpy_helper.from_array(np.array(value), name) for name, value in shapes.items()]
    graph = helper.make_graph(nodes, "tiny", ends[:1], ends[1:], stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def run(model: Any, batch: NDArray[np.float32]) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found: NDArray[np.float32] = session.run(["embedding"], {"image": batch})[0]
    return found


def kinds_into(model: Any, operator: str) -> set[int]:
    """The types of everything that goes into the nodes of an operator."""
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    kinds = {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.input, *graph.output)}
    kinds |= {weight.name: weight.data_type for weight in graph.initializer}
    return {kinds[name] for node in graph.node if node.op_type == operator for name in node.input}


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_products_are_lowered_and_layer_norm_and_softmax_are_not(precision: str) -> None:
    lowered, kind = lowering.lower(attention(), precision), lowering.KINDS[precision]
    assert kinds_into(lowered, "MatMul") == {kind}
    for operator in ("LayerNormalization", "Softmax", "LpNormalization"):
        assert kinds_into(lowered, operator) == {onnx.TensorProto.FLOAT}
    ends = (*lowered.graph.input, *lowered.graph.output)
    assert {end.type.tensor_type.elem_type for end in ends} == {onnx.TensorProto.FLOAT}
    assert lowered.ByteSize() < 0.7 * attention().ByteSize()


def test_emulation_in_fp16_is_what_onnxruntime_does_in_fp16() -> None:
    """bf16 has no kernels on a CPU; fp16 has, and shows that the emulation rounds as they do."""
    batch = np.random.default_rng(1).standard_normal((8, 3, SIDE, SIDE), np.float32)
    lowered = lowering.lower(attention(), "fp16")
    np.testing.assert_allclose(run(lowering.emulate(lowered), batch), run(lowered, batch), atol=2e-3)


def test_emulation_in_bf16_rounds_as_bf16_does() -> None:
    batch = np.random.default_rng(2).standard_normal((8, 3, SIDE, SIDE), np.float32)
    exact = run(attention(), batch)
    errors = {
        precision: float(np.abs(run(lowering.emulate(lowering.lower(attention(), precision)), batch) - exact).max())
        for precision in ("fp16", "bf16")
    }
    assert 0 < errors["fp16"] < errors["bf16"] / 3 < 0.05


def test_stored_bf16_is_the_nearest(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="torch is the reference for bf16: pip install nearcase[models]")
    values = np.random.default_rng(3).standard_normal(10_000).astype(np.float32)
    stored = lowering._stored(values, "x", onnx.TensorProto.BFLOAT16)
    np.testing.assert_array_equal(lowering._values(stored), torch.from_numpy(values).bfloat16().float().numpy())


def test_a_weight_that_does_not_fit_fp16_is_refused() -> None:
    model = attention()
    weight = next(each for each in model.graph.initializer if each.name == "first")
    weight.CopyFrom(onnx.numpy_helper.from_array(np.full((48, 48), 1e5, np.float32), "first"))
    with pytest.raises(InvalidInput, match="does not fit fp16"):
        lowering.lower(model, "fp16")
    lowering.lower(model, "bf16")


def test_what_is_not_fp32_is_refused() -> None:
    with pytest.raises(InvalidInput, match="in fp32"):
        lowering.lower(lowering.lower(attention(), "fp16"), "fp16")


# The gate


def cosine(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def unit(rng: np.random.Generator, count: int = 40) -> NDArray[np.float32]:
    vectors = rng.normal(size=(count, 16))
    found: NDArray[np.float32] = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return found


def test_the_gate_counts_what_a_full_sort_counts() -> None:
    rng = np.random.default_rng(4)
    first = unit(rng)
    second = (first + 0.1 * unit(rng)).astype(np.float32)
    kept = []
    for place in range(40):
        others = [each for each in range(40) if each != place]
        tops = [
            set(sorted(others, key=lambda each: -cosine(vectors[each], vectors[place]))[:10])
            for vectors in (first, second)
        ]
        kept.append(len(tops[0] & tops[1]) / 10)
    measured = gate.measure(first, second)
    assert measured.recall_at_10 == pytest.approx(np.mean(kept))
    assert 0.5 < measured.recall_at_10 < 1.0


def test_the_same_vectors_pass_and_others_do_not() -> None:
    rng = np.random.default_rng(5)
    vectors = unit(rng)
    assert gate.measure(vectors, vectors).passes
    assert not gate.measure(vectors, vectors[::-1]).passes
    spoiled = vectors.copy()
    spoiled[7] = np.nan
    assert not gate.measure(vectors, spoiled).passes
    turned = np.roll(vectors, 1, axis=1)  # every angle between images is kept, every embedding is another
    assert gate.measure(vectors, turned).recall_at_10 == 1.0
    assert not gate.measure(vectors, turned).passes


def test_too_few_images_tell_nothing_and_copies_do_not_count() -> None:
    vectors = unit(np.random.default_rng(6))
    with pytest.raises(InvalidInput, match="different real images"):
        gate.measure(vectors[:29], vectors[:29])
    assert gate.distinct(np.concatenate([vectors, vectors])) == list(range(40))


# A folder in a lower precision, with real images


@pytest.fixture(scope="module")
def fp16(encoder_folder: Path, pydicom_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out: Path = tmp_path_factory.mktemp("encoders") / "fp16"
    export_precision(encoder_folder, out, "fp16")
    return out


def test_fp16_of_the_default_encoder_passes_on_real_images(fp16: Path, encoder_folder: Path) -> None:
    card, source = read_card(fp16), read_card(encoder_folder)
    assert card.gate is not None
    assert card.gate.images >= 50
    assert card.gate.least_cosine >= 0.999
    assert card.gate.recall_at_10 >= 0.99
    assert card.gate.against == source.sha256
    assert "pydicom" in card.gate.sources
    assert (card.precision, card.statement, card.recipe) == ("fp16", source.statement, source.recipe)
    assert (fp16 / "NOTICE").is_file()
    assert card.onnx_path.stat().st_size < 0.6 * source.onnx_path.stat().st_size
    open_encoder(fp16)


async def test_a_library_in_one_precision_refuses_another(fp16: Path, encoder_folder: Path, tmp_path: Path) -> None:
    first, second = read_card(encoder_folder), read_card(fp16)
    index = await open_index(tmp_path / "library", dimension=first.dimension, encoder_identity=first.identity)
    await index.close()
    with pytest.raises(Unready) as refusal:
        await open_index(tmp_path / "library", dimension=second.dimension, encoder_identity=second.identity)
    assert refusal.value.reason == "ENCODER_MISMATCH"


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_what_fails_the_gate_says_how_far_off_it_is_and_writes_nothing(
    encoder_folder: Path, pydicom_data: Path, tmp_path: Path, precision: str
) -> None:
    """The default encoder is too fine for either: its embeddings are what is left after a mean is taken off."""
    with pytest.raises(InvalidInput, match=rf"{precision} does not pass the gate: .* got least cosine 0\.\d+, recall"):
        export_precision(encoder_folder, tmp_path / "out", precision)
    assert list(tmp_path.iterdir()) == []


def test_a_broken_export_does_not_pass(
    encoder_folder: Path, pydicom_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One convolution of forty-nine loses its weights: shapes, types and lengths are all as they should be."""

    def broken(source: Any, precision: str) -> Any:
        model = lowering.lower(source, precision)
        weight = max((each for each in model.graph.initializer if len(each.dims) == 4), key=lambda each: each.dims[1])
        weight.raw_data = bytes(len(weight.raw_data))
        return model

    monkeypatch.setattr("nearcase_models.precision.lower", broken)
    with pytest.raises(InvalidInput, match="does not pass the gate"):
        export_precision(encoder_folder, tmp_path / "out", "fp16")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_ones_own_images_is_used(encoder_folder: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    rng = np.random.default_rng(8)
    for number in range(12):
        coarse = PillowImage.fromarray(rng.integers(0, 256, (6, 6), dtype=np.uint8))
        coarse.resize((64, 64), PillowImage.Resampling.BICUBIC).save(images / f"{number}.png")
    with pytest.raises(InvalidInput, match="30 or more different real images for the gate, got 12"):
        export_precision(encoder_folder, tmp_path / "out", "fp16", images=images)


def test_only_fp32_is_exported(fp16: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="in fp32"):
        export_precision(fp16, tmp_path / "out", "int8")
