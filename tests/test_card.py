"""Cards: what is read, and that every damage is refused by name."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from nearcase.encode.card import Card, default_encoder_folder, read_card
from nearcase.encode.card_tables import TextTower, Weights
from nearcase.encode.preprocess import Recipe
from nearcase.errors import Unready

PROJECT = Path(__file__).parents[1]
NETWORK = b"any bytes: a card states their hash and does not run them"
SHA256 = hashlib.sha256(NETWORK).hexdigest()
CARD = f"""\
name = "tiny"
version = "3"
description = "A test encoder."
origin = "made in a test"
licence = "Apache-2.0"
statement = "Not medical."
is_medical = false
dimension = 8
opset = 18
precision = "fp32"
sha256 = "{SHA256}"

[recipe]
name = "stretch"
version = 1
size_px = 32
mean = [0.5, 0.25, 0]
std = [0.1, 0.2, 1]

[parity]
against = "torch"
batches = [1, 3]
max_difference = 1e-6

[weights]
sha256 = "{SHA256}"
are_published = true
cosine = 0.99999

[text]
sha256 = "{SHA256}"
tokenizer_sha256 = "{SHA256}"
context = 77
log_scale = 4.5

[[centring]]
name = "heads"
licence = "MIT"
images = 9
packages = ["heads 1.0"]
"""
KEYS = [*re.findall(r"^(\w+) =", CARD, re.MULTILINE)]
LINES = [line for line in CARD.splitlines() if "=" in line]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "tiny"
    folder.mkdir()
    (folder / "card.toml").write_text(CARD)
    (folder / "encoder.onnx").write_bytes(NETWORK)
    (folder / "golden.npz").write_bytes(b"")
    for name in ("text.onnx", "tokenizer.json", "golden_text.npz"):
        (folder / name).write_bytes(NETWORK)
    return folder


def refusal(folder: Path, card: str) -> Unready:
    (folder / "card.toml").write_text(card)
    with pytest.raises(Unready) as refused:
        read_card(folder)
    assert "\n" not in str(refused.value)
    return refused.value


def test_a_card_is_read_whole(folder: Path) -> None:
    card = read_card(folder)
    assert (card.name, card.version, card.dimension, card.is_medical) == ("tiny", "3", 8, False)
    assert isinstance(card.recipe, Recipe)
    assert card.recipe.mean == (0.5, 0.25, 0.0)
    assert card.recipe.std == (0.1, 0.2, 1.0)
    assert card.centring[0].packages == ("heads 1.0",)
    assert card.parity is not None
    assert card.parity.batches == (1, 3)
    assert card.weights == Weights(SHA256, are_published=True, cosine=0.99999)
    assert card.text == TextTower(SHA256, SHA256, context=77, log_scale=4.5)


def test_the_identity_tells_network_recipe_and_precision_apart(folder: Path) -> None:
    card = read_card(folder)
    assert card.identity == f"tiny:{SHA256[:16]}:stretch-1-32:fp32"
    (folder / "card.toml").write_text(CARD.replace("size_px = 32", "size_px = 48"))
    resized = read_card(folder)
    (folder / "card.toml").write_text(CARD.replace("fp32", "fp16"))
    halved = read_card(folder)
    (folder / "encoder.onnx").write_bytes(NETWORK[::-1])
    (folder / "card.toml").write_text(CARD.replace(SHA256, hashlib.sha256(NETWORK[::-1]).hexdigest(), 1))
    retrained = read_card(folder)
    assert len({each.identity for each in (card, resized, halved, retrained)}) == 4


def test_the_identity_does_not_depend_on_words_about_the_encoder(folder: Path) -> None:
    before = read_card(folder).identity
    (folder / "card.toml").write_text(CARD.replace("A test encoder.", "The same encoder, told better."))
    assert read_card(folder).identity == before


def test_the_summary_says_what_surfaces_show(folder: Path) -> None:
    summary = read_card(folder).summary("onnxruntime CPU")
    assert summary.statement == "Not medical."
    assert summary.sha256 == SHA256
    assert summary.recipe == "stretch-1-32"
    assert summary.runtime == "onnxruntime CPU"
    assert not summary.is_medical


@pytest.mark.parametrize(("key", "line"), list(zip(KEYS, LINES, strict=True)))
def test_a_missing_key_is_named(folder: Path, key: str, line: str) -> None:
    error = refusal(folder, CARD.replace(f"{line}\n", "", 1))
    assert error.field == key
    assert key in str(error)


@pytest.mark.parametrize(("key", "line"), list(zip(KEYS, LINES, strict=True)))
@pytest.mark.parametrize("value", ["{}", '[[""]]', '""', "-2", "1979-05-27", "nan"])
def test_a_wrong_value_is_named(folder: Path, key: str, line: str, value: str) -> None:
    error = refusal(folder, CARD.replace(line, f"{key} = {value}", 1))
    assert error.field == key
    assert error.reason == "CARD_INVALID"


@pytest.mark.parametrize("table", ["", "[recipe]", "[parity]", "[weights]", "[text]", "[[centring]]"])
def test_an_unknown_key_is_named_in_every_table(folder: Path, table: str) -> None:
    card = CARD.replace(table, f"{table}\nimage_size = 1\n", 1)
    assert refusal(folder, card).field == "image_size"


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("is_medical = false", "is_medical = 0", "is_medical"),
        ("dimension = 8", "dimension = true", "dimension"),
        ("dimension = 8", "dimension = 8.0", "dimension"),
        ("dimension = 8", "dimension = 0", "dimension"),
        ('precision = "fp32"', 'precision = "fp8"', "precision"),
        ('name = "tiny"', 'name = "../tiny"', "name"),
        ('name = "tiny"', 'name = "tiny:2"', "name"),
        ("std = [0.1, 0.2, 1]", "std = [0.1, 0.2, 0]", "std"),
        ("std = [0.1, 0.2, 1]", "std = [0.1, 0.2]", "std"),
        ("mean = [0.5, 0.25, 0]", "mean = [123.7, 116.3, 103.5]", "mean"),
        ('name = "stretch"', 'name = "letterbox"', "name"),
        ('name = "stretch"', 'name = "native480"', "size_px"),
        ('name = "stretch"', 'name = "azure512q75"', "size_px"),
        ("version = 1", "version = 2", "name"),
        ("size_px = 32", "size_px = 100000", "size_px"),
        ("batches = [1, 3]", "batches = [1, true]", "batches"),
        ("max_difference = 1e-6", "max_difference = inf", "max_difference"),
    ],
)
def test_a_value_out_of_range_is_named(folder: Path, old: str, new: str, key: str) -> None:
    assert old in CARD
    assert refusal(folder, CARD.replace(old, new, 1)).field == key


@pytest.mark.parametrize("text", ["name = ", "\x00", "[recipe", "name = 1\nname = 2"])
def test_what_is_no_toml_is_refused(folder: Path, text: str) -> None:
    assert refusal(folder, text).reason == "CARD_INVALID"


def test_a_card_in_another_encoding_is_refused(folder: Path) -> None:
    (folder / "card.toml").write_bytes(CARD.encode("utf-16"))
    with pytest.raises(Unready, match="TOML"):
        read_card(folder)


def test_an_edited_network_is_refused(folder: Path) -> None:
    (folder / "encoder.onnx").write_bytes(NETWORK + b"!")
    with pytest.raises(Unready, match="sha256") as refused:
        read_card(folder)
    assert refused.value.reason == "ENCODER_CHANGED"


@pytest.mark.parametrize("name", ["card.toml", "encoder.onnx", "golden.npz"])
def test_a_link_out_of_the_folder_is_refused(folder: Path, name: str) -> None:
    outside = folder.parent / name
    (folder / name).rename(outside)
    with pytest.raises(Unready, match=f"{name}.*found none"):
        read_card(folder)
    (folder / name).symlink_to(outside)
    with pytest.raises(Unready, match="link out of it"):
        read_card(folder)


def test_links_inside_the_folder_are_followed(folder: Path) -> None:
    """Kubernetes mounts a volume as links to a hidden folder beside them."""
    (folder / "..data").mkdir()
    for name in ("card.toml", "encoder.onnx", "golden.npz"):
        (folder / name).rename(folder / "..data" / name)
        (folder / name).symlink_to(Path("..data") / name)
    assert read_card(folder).name == "tiny"


def test_the_default_encoder_is_read_and_says_what_it_is() -> None:
    card = read_card(default_encoder_folder())
    assert isinstance(card, Card)
    assert card.statement == "General-purpose ImageNet encoder, not medical, not validated for diagnosis."
    assert not card.is_medical
    assert card.licence == "Apache-2.0"
    assert card.dimension == 1280


def test_an_installed_package_finds_the_encoder_beside_it(tmp_path: Path) -> None:
    site = tmp_path / "site-packages"
    shutil.copytree(PROJECT / "server" / "nearcase", site / "nearcase", ignore=shutil.ignore_patterns("__pycache__"))
    script = "from nearcase.encode.card import default_encoder_folder as f; print(f())"
    command = [sys.executable, "-c", script]
    environment = {**os.environ, "PYTHONPATH": str(site)}
    absent = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "Expected the encoder efficientnet-lite0 beside the package" in absent.stderr
    (site / "nearcase" / "zoo" / "efficientnet-lite0").mkdir(parents=True)
    (site / "nearcase" / "zoo" / "efficientnet-lite0" / "card.toml").write_text(CARD)
    found = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert Path(found.stdout.strip()) == site / "nearcase" / "zoo" / "efficientnet-lite0"


def test_the_wheel_takes_the_encoder_along() -> None:
    settings = tomllib.loads((PROJECT / "pyproject.toml").read_text())
    included = settings["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    assert included["models/zoo"] == "nearcase/zoo"
