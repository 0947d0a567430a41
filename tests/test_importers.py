"""Importers of other people's networks: the same embeddings as the library that they come from, and strict refusals."""

from __future__ import annotations

import importlib
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tiny_encoders import SIDE_PX, tiny_encoder

from nearcase.encode.card import read_card
from nearcase.encode.preprocess import STRETCH, Recipe
from nearcase.encode.runtime import open_encoder
from nearcase.errors import InvalidInput, NearcaseError, NotFound

torch = pytest.importorskip("torch", reason="torch reads checkpoints: pip install nearcase[models]")
onnx = pytest.importorskip("onnx", reason="onnx writes networks: pip install nearcase[models]")
artefact = pytest.importorskip("nearcase_models.artefact")
from_onnx = pytest.importorskip("nearcase_models.from_onnx")
network = pytest.importorskip("nearcase_models.network")
checkpoints = pytest.importorskip("nearcase_models.checkpoint")

IDENTITY = artefact.Identity("tiny", "Random weights, for tests.", "tests", "Apache-2.0")
RECIPE = Recipe(*STRETCH, size_px=SIDE_PX, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))


def library(name: str, packages: str) -> Any:
    """A library, or a skip: torchvision for torch on a CPU is not in every registry."""
    try:
        return importlib.import_module(name)
    except (ImportError, RuntimeError) as error:  # torchvision of another torch raises RuntimeError
        pytest.skip(f"pip install {packages}: {str(error)[:80]}")


def noise(folder: Path, count: int = 3) -> NDArray[np.float32]:
    shape = (count, *read_card(folder).recipe.input_shape)
    return np.random.default_rng(0).standard_normal(shape, np.float32)


def least_cosine(folder: Path, expected: Any, batch: NDArray[np.float32]) -> float:
    vectors = expected.detach().numpy().astype(np.float64)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return float(np.sum(vectors * open_encoder(folder).embed(batch), axis=1).min())


# Folders


def a_network() -> Any:
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 8, 8), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(128, 20)
    )


def made(out: Path, model: Any) -> None:
    network.write_network(network.Network(model, RECIPE, "tests", "A small network"), IDENTITY, out)


def test_any_network_becomes_a_folder(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, out = a_network(), tmp_path / "out"
    made(out, model)
    batch = noise(out, 7)
    assert least_cosine(out, model(torch.from_numpy(batch)), batch) > 0.999999
    card = read_card(out)
    assert (card.dimension, card.precision, card.is_medical) == (20, "fp32", False)
    assert "not medical, not validated" in card.statement
    assert card.parity is not None
    assert card.parity.batches == (1, 3, 5)


def test_a_folder_that_is_there_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(InvalidInput, match="there already"):
        made(tmp_path / "out", a_network())
    assert list((tmp_path / "out").iterdir()) == []


def test_a_build_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def full(folder: Path) -> Any:
        (folder / "encoder.onnx").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(NearcaseError, match="No space left on device"):
        artefact.write_artefact(tmp_path / "out", IDENTITY, full)
    assert list(tmp_path.iterdir()) == []


def test_a_network_that_gives_no_vectors_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="one finite vector for each image"):
        made(tmp_path / "out", torch.nn.Conv2d(3, 8, 8))
    with pytest.raises(InvalidInput, match="does not take"):
        made(tmp_path / "out", torch.nn.Linear(3, 8))
    assert list(tmp_path.iterdir()) == []


# Checkpoints


def test_safetensors_and_torch_files_are_told_apart_by_their_bytes(tmp_path: Path) -> None:
    safe = pytest.importorskip("safetensors.torch", reason="pip install safetensors")
    tensors = a_network().state_dict()
    safe.save_file(tensors, tmp_path / "a.pt")
    torch.save({"state_dict": tensors}, tmp_path / "b.safetensors")
    for file in tmp_path.iterdir():
        found = checkpoints.read_checkpoint(file)
        assert all(torch.equal(found[name], value) for name, value in tensors.items())


def test_half_precision_is_read_as_float32(tmp_path: Path) -> None:
    torch.save({name: value.bfloat16() for name, value in a_network().state_dict().items()}, tmp_path / "a.pt")
    model = a_network()
    checkpoints.load_strictly(model, checkpoints.read_checkpoint(tmp_path / "a.pt"))
    assert {value.dtype for value in model.state_dict().values()} == {torch.float32}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "safetensors or torch file"),
        (b"words", "safetensors or torch file"),
        (pickle.dumps({"a": print}), "would run code"),
        ((20).to_bytes(8, "little") + b"{" + b"x" * 30, "sound .safetensors file"),
        (b"PK\x05\x06" + bytes(18), "damaged"),
    ],
)
def test_other_bytes_are_refused_in_one_line(tmp_path: Path, data: bytes, words: str) -> None:
    (tmp_path / "file").write_bytes(data)
    with pytest.raises(InvalidInput, match=words) as refusal:
        checkpoints.read_checkpoint(tmp_path / "file")
    assert "\n" not in str(refusal.value)


# Bare ONNX


def changed(path: Path, change: Any) -> Path:
    model = onnx.load(path)
    change(model)
    onnx.save(model, path.with_name("changed.onnx"))
    return path.with_name("changed.onnx")


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """The network of a tiny encoder with other names and without its unit length."""

    def strip(model: Any) -> None:
        del model.graph.node[-1]
        model.graph.output[0].name = "projected"
        model.graph.input[0].name = model.graph.node[0].input[0] = "pixel_values"

    return changed(tiny_encoder(tmp_path / "tiny", "tiny", seed=1) / "encoder.onnx", strip)


def test_a_bare_file_gets_names_unit_length_and_any_batch(bare: Path, tmp_path: Path) -> None:
    def fixed(model: Any) -> None:
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1

    from_onnx.import_onnx(changed(bare, fixed), tmp_path / "out", IDENTITY, RECIPE)
    found, expected = open_encoder(tmp_path / "out"), open_encoder(tmp_path / "tiny")
    batch = noise(tmp_path / "tiny", 5)
    np.testing.assert_allclose(found.embed(batch), expected.embed(batch), atol=1e-6)


def test_values_that_have_our_names_inside_are_no_trouble(bare: Path, tmp_path: Path) -> None:
    def named(model: Any) -> None:
        model.graph.node[1].output[0] = model.graph.node[2].input[0] = "embedding"
        model.graph.node[0].output[0] = model.graph.node[1].input[0] = "image"

    from_onnx.import_onnx(changed(bare, named), tmp_path / "out", IDENTITY, RECIPE)
    batch = noise(tmp_path / "tiny")
    expected = open_encoder(tmp_path / "tiny").embed(batch)
    np.testing.assert_allclose(open_encoder(tmp_path / "out").embed(batch), expected, atol=1e-6)


def test_weights_in_another_file_are_refused(bare: Path, tmp_path: Path) -> None:
    model = onnx.load(bare)
    onnx.save(model, tmp_path / "outside.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    with pytest.raises(InvalidInput, match="external data"):
        from_onnx.import_onnx(tmp_path / "outside.onnx", tmp_path / "out", IDENTITY, RECIPE)


def test_a_network_that_mixes_its_batch_is_refused(bare: Path, tmp_path: Path) -> None:
    def mixed(model: Any) -> None:
        helper = onnx.helper
        model.graph.node[-1].output[0] = "own"
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([0]), "over"))
        model.graph.node.append(helper.make_node("ReduceSum", ["own", "over"], ["all"], keepdims=1))
        model.graph.node.append(helper.make_node("Add", ["own", "all"], ["projected"]))

    with pytest.raises(InvalidInput, match="the same in a batch and alone"):
        from_onnx.import_onnx(changed(bare, mixed), tmp_path / "out", IDENTITY, RECIPE)


def test_what_does_not_fit_is_refused(bare: Path, tmp_path: Path) -> None:
    other = Recipe(*STRETCH, size_px=64, mean=RECIPE.mean, std=RECIPE.std)
    with pytest.raises(InvalidInput, match="as --size says"):
        from_onnx.import_onnx(bare, tmp_path / "out", IDENTITY, other)
    (tmp_path / "words.onnx").write_bytes(b"words, words, words")
    with pytest.raises(InvalidInput, match="ONNX file"):
        from_onnx.import_onnx(tmp_path / "words.onnx", tmp_path / "out", IDENTITY, RECIPE)
    assert not (tmp_path / "out").exists()


# Libraries


def test_timm_features_are_reproduced(tmp_path: Path) -> None:
    timm = library("timm", "timm torchvision")
    from nearcase_models.from_timm import load_timm

    torch.manual_seed(0)
    model = timm.create_model("resnet10t", pretrained=False).eval()
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    network.write_network(load_timm("resnet10t", tmp_path / "weights.pt"), IDENTITY, tmp_path / "out")
    batch = noise(tmp_path / "out")
    expected = model.forward_head(model.forward_features(torch.from_numpy(batch)), pre_logits=True)
    assert least_cosine(tmp_path / "out", expected, batch) > 0.99999
    with pytest.raises(InvalidInput, match="near: resnet10t"):
        load_timm("resnet10x", tmp_path / "weights.pt")
    with pytest.raises(InvalidInput, match="found no"):
        load_timm("resnet18", tmp_path / "weights.pt")


@pytest.mark.slow
def test_open_clip_images_are_reproduced(tmp_path: Path) -> None:
    open_clip = library("open_clip", "open_clip_torch torchvision")
    from nearcase_models.from_open_clip import load_open_clip

    torch.manual_seed(0)
    model = open_clip.create_model("ViT-S-32-alt", pretrained=None).eval()
    torch.save({f"module.{name}": value for name, value in model.state_dict().items()}, tmp_path / "weights.pt")
    network.write_network(load_open_clip("ViT-S-32-alt", tmp_path / "weights.pt"), IDENTITY, tmp_path / "out")
    batch = noise(tmp_path / "out")
    assert least_cosine(tmp_path / "out", model.encode_image(torch.from_numpy(batch)), batch) > 0.99999


@pytest.fixture
def hugging_face(tmp_path: Path) -> Path:
    transformers = pytest.importorskip("transformers", reason="pip install transformers")
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=48, num_hidden_layers=2, num_attention_heads=3, intermediate_size=96, image_size=64, patch_size=16
    )
    folder = tmp_path / "checkpoint"
    transformers.ViTForImageClassification(config).save_pretrained(folder)
    words = {"size": {"height": 64, "width": 64}, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.2, 0.2]}
    (folder / "preprocessor_config.json").write_text(json.dumps(words))
    return folder


@pytest.mark.filterwarnings("ignore")  # of the library's own making
@pytest.mark.parametrize("pool", ["cls", "mean"])
def test_hugging_face_tokens_are_reproduced(hugging_face: Path, tmp_path: Path, pool: str) -> None:
    transformers = pytest.importorskip("transformers", reason="pip install transformers")
    from nearcase_models.from_huggingface import load_huggingface

    network.write_network(load_huggingface(hugging_face, pool), IDENTITY, tmp_path / "out")
    recipe = read_card(tmp_path / "out").recipe
    assert recipe == Recipe(*STRETCH, size_px=64, mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.2))
    batch = noise(tmp_path / "out")
    whole = transformers.ViTForImageClassification.from_pretrained(hugging_face).eval().vit
    tokens = whole(pixel_values=torch.from_numpy(batch)).last_hidden_state
    expected = tokens[:, 0] if pool == "cls" else tokens.mean(dim=1)
    assert least_cosine(tmp_path / "out", expected, batch) > 0.99999


@pytest.mark.filterwarnings("ignore")
def test_hugging_face_folders_that_are_incomplete_or_run_code_are_refused(hugging_face: Path) -> None:
    from nearcase_models.from_huggingface import load_huggingface

    with pytest.raises(InvalidInput, match="has no pooler"):
        load_huggingface(hugging_face, "pooler")
    config = json.loads((hugging_face / "config.json").read_text())
    (hugging_face / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModel": "code.Model"}}))
    with pytest.raises(InvalidInput, match="code of its own"):
        load_huggingface(hugging_face)
    (hugging_face / "config.json").write_text(json.dumps(config))
    (hugging_face / "model.safetensors").rename(hugging_face / "pytorch_model.bin")
    with pytest.raises(InvalidInput, match="pickled weights are not opened"):
        load_huggingface(hugging_face)


def test_an_absent_library_is_named_and_not_installed() -> None:
    from nearcase_models.extra import needed

    with pytest.raises(NotFound, match="pip install no-such-package"):
        needed("nearcase_no_such_module", "no-such-package")
