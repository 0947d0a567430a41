"""An encoder never travels without its card: `card.toml` says what it is and how its input is made.

A folder is an encoder: `encoder.onnx`, `card.toml` and `golden.npz`, under these fixed names. Reading is strict,
because a wrong card gives wrong neighbours without any other sign.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

from nearcase.encode.card_tables import (
    SHA256,
    CentringSource,
    Gate,
    Parity,
    TextTower,
    Weights,
    read_gate,
    read_parity,
    read_source,
    read_text_tower,
    read_weights,
)
from nearcase.encode.inputs import AnyRecipe
from nearcase.encode.preprocess import RECIPES, Recipe
from nearcase.encode.table import Table
from nearcase.encode.volume import CHEST_CT, VolumeRecipe
from nearcase.errors import Unready
from nearcase.types import EncoderSummary

DEFAULT_ENCODER = "efficientnet-lite0"
PRECISIONS = ("fp32", "fp16", "bf16", "int8")
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class Card:
    """What an encoder is; read from its folder, whose `encoder.onnx` had this SHA-256 then."""

    folder: Path
    name: str
    version: str
    description: str
    origin: str
    licence: str
    statement: str  # one sentence of intended use, shown to people on every surface
    is_medical: bool
    dimension: int
    opset: int
    precision: str  # one of PRECISIONS
    sha256: str  # of encoder.onnx, hexadecimal
    recipe: AnyRecipe
    centring: tuple[CentringSource, ...] = ()  # empty: embeddings are not centred
    parity: Parity | None = None  # None: not exported by nearcase
    gate: Gate | None = None  # None: not made from another precision
    weights: Weights | None = None  # None: of no known publisher
    text: TextTower | None = None  # None: embeds images only

    @property
    def identity(self) -> str:
        """One word that a library stores, and that must be equal for its vectors to be comparable."""
        return f"{self.name}:{self.sha256[:16]}:{self.recipe.identity}:{self.precision}"

    @property
    def onnx_path(self) -> Path:
        """Where the network is."""
        return self.folder / "encoder.onnx"

    @property
    def golden_path(self) -> Path:
        """Where the embeddings are that the encoder must reproduce."""
        return self.folder / "golden.npz"

    @property
    def text_path(self) -> Path:
        """Where the network of the text tower is, if there is one."""
        return self.folder / "text.onnx"

    @property
    def tokenizer_path(self) -> Path:
        """Where the text tower's tokenizer is."""
        return self.folder / "tokenizer.json"

    @property
    def golden_text_path(self) -> Path:
        """Where the texts and embeddings are that the text tower must reproduce."""
        return self.folder / "golden_text.npz"

    def summary(self, runtime: str = "") -> EncoderSummary:
        """Returns what every surface says of this encoder, running on that runtime."""
        return EncoderSummary(
            name=self.name,
            version=self.version,
            sha256=self.sha256,
            dimension=self.dimension,
            recipe=self.recipe.identity,
            is_medical=self.is_medical,
            statement=self.statement,
            runtime=runtime,
        )


def read_card(folder: Path) -> Card:
    """Returns the card of an encoder's folder, once the network's SHA-256 is the one that the card states.

    Raises:
        Unready: A file is absent or lies outside the folder, a key of the card is missing, unknown or of another type,
            or the network is not the card's.
    """
    try:
        table = Table(_parse(_inside(folder, "card.toml")), "card.toml")
        card = _card(folder, table)
        table.end()
        _check_statement(card, table)
        for name, sha256 in _stated(card).items():
            _check_file(card, name, sha256)
    except OSError as error:
        raise Unready(f"Expected a readable encoder folder, got: {error}", reason="ENCODER_ABSENT") from error
    return card


def _stated(card: Card) -> dict[str, str]:
    """Returns the SHA-256 of each file of the folder; empty where the file itself is checked later."""
    files = {"encoder.onnx": card.sha256, "golden.npz": ""}
    if card.text:
        files |= {"text.onnx": card.text.sha256, "tokenizer.json": card.text.tokenizer_sha256, "golden_text.npz": ""}
    return files


def _check_file(card: Card, name: str, sha256: str) -> None:
    path = _inside(card.folder, name)
    found = _sha256(path) if sha256 else ""
    if found != sha256:
        raise Unready(
            f"Expected {name} of {card.name} with sha256 {sha256[:16]}..., got {found[:16]}...",
            reason="ENCODER_CHANGED",
            field="sha256",
        )


def _check_statement(card: Card, table: Table) -> None:
    """People read the statement, not the flag: it may not claim what the flag denies."""
    if not card.is_medical and "not medical" not in card.statement.lower():
        raise table.refuse("statement", "one with the words 'not medical', as is_medical is false", "another")


def default_encoder_folder() -> Path:
    """Returns the folder of the encoder that ships with nearcase, in an installed package or a source checkout.

    Raises:
        Unready: Neither holds it.
    """
    package = Path(__file__).resolve().parents[1]
    for zoo in (package / "zoo", package.parents[1] / "models" / "zoo"):
        if (zoo / DEFAULT_ENCODER / "card.toml").is_file():
            return zoo / DEFAULT_ENCODER
    raise Unready(f"Expected the encoder {DEFAULT_ENCODER} beside the package, found none", reason="ENCODER_ABSENT")


def _inside(folder: Path, name: str) -> Path:
    path = (folder / name).resolve()
    if not path.is_file():
        raise Unready(f"Expected {name} in the encoder folder {folder}, found none", reason="ENCODER_ABSENT")
    if not path.is_relative_to(folder.resolve()):
        raise Unready(
            f"Expected {name} inside the encoder folder {folder}, got a link out of it", reason="ENCODER_LINK"
        )
    return path


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _parse(path: Path) -> dict[str, object]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except ValueError as error:  # TOMLDecodeError and UnicodeDecodeError are ValueErrors
        raise Unready(f"Expected card.toml to be TOML, got: {error}", reason="CARD_INVALID") from error


def _card(folder: Path, table: Table) -> Card:
    return Card(
        folder=folder,
        name=table.text("name", _NAME),
        version=table.text("version"),
        description=table.text("description"),
        origin=table.text("origin"),
        licence=table.text("licence"),
        statement=table.text("statement"),
        is_medical=table.truth("is_medical"),
        dimension=table.integer("dimension", 1, 65_536),
        opset=table.integer("opset", 17, 99),
        precision=table.choice("precision", PRECISIONS),
        sha256=table.text("sha256", SHA256),
        recipe=_recipe(table.table("recipe")),
        centring=tuple(read_source(each) for each in table.optional_tables("centring")),
        parity=read_parity(table.table("parity")) if table.has("parity") else None,
        gate=read_gate(table.table("gate")) if table.has("gate") else None,
        weights=read_weights(table.table("weights")) if table.has("weights") else None,
        text=read_text_tower(table.table("text")) if table.has("text") else None,
    )


def _recipe(table: Table) -> AnyRecipe:
    return _volume_recipe(table) if table.has("shape_voxels") else _picture_recipe(table)


def _volume_recipe(table: Table) -> VolumeRecipe:
    name, version, shape = table.text("name"), table.integer("version", 1, 999), table.integers("shape_voxels")
    table.end()
    if len(shape) != 3 or not all(16 <= size <= 1024 for size in shape):
        raise table.refuse("shape_voxels", "3 whole numbers from 16 to 1024", list(shape))
    if (name, version) != CHEST_CT:
        raise table.refuse("name", f"the recipe {CHEST_CT[0]} {CHEST_CT[1]}", f"{name} {version}")
    return VolumeRecipe(name, version, (shape[0], shape[1], shape[2]))


def _picture_recipe(table: Table) -> Recipe:
    recipe = Recipe(
        name=table.text("name"),
        version=table.integer("version", 1, 999),
        size_px=table.integer("size_px", 16, 4096),
        mean=table.rgb("mean", 0.0, 1.0),
        std=table.rgb("std", 1e-3, 1.0),
    )
    table.end()
    known = ", ".join(f"{name} {version}" for name, version in RECIPES)
    if (recipe.name, recipe.version) not in RECIPES:
        raise table.refuse("name", f"one of the recipes {known}", f"{recipe.name} {recipe.version}")
    if RECIPES[recipe.name, recipe.version] not in (None, recipe.size_px):
        raise table.refuse("size_px", f"{RECIPES[recipe.name, recipe.version]} for {recipe.name}", recipe.size_px)
    return recipe
