"""An encoder's folder, written whole or not at all: built beside its place, checked as the server does, renamed."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nearcase.encode.card import Card, read_card
from nearcase.encode.golden import read_golden
from nearcase.encode.inputs import AnyRecipe, golden_frame, to_batch
from nearcase.encode.onnx_cpu import CpuEncoder
from nearcase.encode.onnx_file import refuse_external_data
from nearcase.encode.preprocess import Recipe
from nearcase.encode.runtime import open_encoder
from nearcase.encode.text import open_text
from nearcase.errors import InvalidInput, NearcaseError

NOT_MEDICAL = "General-purpose encoder, not medical, not validated for diagnosis."


@dataclass(frozen=True, slots=True)
class Identity:
    """What a card says of an encoder in words."""

    name: str
    description: str
    origin: str
    licence: str
    statement: str = NOT_MEDICAL
    is_medical: bool = False
    version: str = "1"


@dataclass(frozen=True, slots=True)
class Made:
    """What a builder put into the folder, besides encoder.onnx."""

    dimension: int
    opset: int
    precision: str
    recipe: AnyRecipe
    golden: Sequence[NDArray[np.generic]]
    more: str = ""  # further tables of the card, TOML
    files: dict[str, str] | None = None  # further files by name: NOTICE
    embed: Callable[[NDArray[np.float32]], NDArray[np.float32]] | None = None  # where no CPU runs the network


def write_artefact(out: Path, identity: Identity, build: Callable[[Path], Made]) -> Card:
    """Returns the card of the new folder.

    Args:
        out: The folder, which must not exist.
        identity: What the card says in words.
        build: Writes encoder.onnx into the folder that it is given.

    Raises:
        InvalidInput: There is something at `out` already, or the network is not one that can be served.
    """
    if out.exists():
        raise InvalidInput(f"expected a new folder, got {out.name}, which is there already")
    beside = out.parent / f".{out.name}.{secrets.token_hex(4)}"
    try:
        beside.mkdir(parents=True)
        made = build(beside)
        _finish(beside, identity, made)
        os.rename(beside, out)
        _sync(out.parent)
    except OSError as error:
        raise NearcaseError(f"the encoder can not be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return read_card(out)


def _finish(folder: Path, identity: Identity, made: Made) -> None:
    for name, text in (made.files or {}).items():
        (folder / name).write_text(text, "utf-8")
    (folder / "card.toml").write_text(card_text(folder, identity, made), "utf-8")
    _write_golden(folder, made)
    card = read_card(folder)
    read_golden(card)
    refuse_external_data(card.onnx_path)
    if made.embed is None:
        open_encoder(folder)  # the server's own checks: card, SHA-256, golden
    if card.text:
        open_text(card)
    for path in (*folder.iterdir(), folder):
        _sync(path)


def _write_golden(folder: Path, made: Made) -> None:
    arrays = {f"image_{number}": image for number, image in enumerate(made.golden)}
    golden = folder / "golden.npz"
    np.savez_compressed(golden, embeddings=np.zeros((0, made.dimension), np.float32))  # a card needs the file
    embed = made.embed or CpuEncoder(folder).embed
    vectors = [embed(to_batch(golden_frame(image, made.recipe)[None], made.recipe))[0] for image in made.golden]
    np.savez_compressed(golden, embeddings=np.stack(vectors), **arrays)  # type: ignore[arg-type]  # arrays, all of them


def card_text(folder: Path, identity: Identity, made: Made) -> str:
    """Returns the text of card.toml for the encoder.onnx that lies in the folder."""
    with (folder / "encoder.onnx").open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    words = {
        "name": identity.name,
        "version": identity.version,
        "description": identity.description,
        "origin": identity.origin,
        "licence": identity.licence,
        "statement": identity.statement,
        "is_medical": identity.is_medical,
        "dimension": made.dimension,
        "opset": made.opset,
        "precision": made.precision,
        "sha256": sha256,
    }
    head = "# Written by nearcase-models; the server reads it strictly.\n"
    lines = "".join(f"{name} = {json.dumps(value, ensure_ascii=False)}\n" for name, value in words.items())
    return f"{head}{lines}{_recipe_text(made.recipe)}{made.more}"


def _recipe_text(recipe: AnyRecipe) -> str:
    text = f'\n[recipe]\nname = "{recipe.name}"\nversion = {recipe.version}\n'
    if isinstance(recipe, Recipe):
        return f"{text}size_px = {recipe.size_px}\nmean = {list(recipe.mean)}\nstd = {list(recipe.std)}\n"
    return f"{text}shape_voxels = {list(recipe.shape_voxels)}\n"


def parity_text(against: str, batches: Sequence[int], max_difference: float) -> str:
    """Returns the card's table of how closely the file repeats the network."""
    return f'\n[parity]\nagainst = "{against}"\nbatches = {list(batches)}\nmax_difference = {max_difference:.2e}\n'


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
