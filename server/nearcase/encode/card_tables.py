"""The tables of a card besides its head and its recipe: where an encoder comes from, and what was measured of it.

Each reader takes its table whole and raises Unready, with the key's name, where a key is missing, unknown or wrong.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from nearcase.encode.table import Table

SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class CentringSource:
    """Images that the mean, which the embeddings are centred on, was fitted on."""

    name: str
    licence: str
    images: int
    packages: tuple[str, ...]  # "name version"


@dataclass(frozen=True, slots=True)
class Parity:
    """How closely the exported file repeats the network that it was exported from."""

    against: str  # "torch 2.13.0"
    batches: tuple[int, ...]
    max_difference: float  # largest absolute difference of any element of a unit embedding


@dataclass(frozen=True, slots=True)
class Gate:
    """How close a lower precision comes to the fp32 encoder that it was made from, on real images."""

    sources: str  # which images, in words
    images: int
    least_cosine: float
    recall_at_10: float  # mean share of each image's ten nearest others that stay among them
    against: str  # SHA-256 of the fp32 network


@dataclass(frozen=True, slots=True)
class Weights:
    """The file that an encoder was imported from."""

    sha256: str  # of the file, hexadecimal
    are_published: bool  # False: the text tower does not give the vector that its publisher printed
    cosine: float  # between that vector and the one that these weights give; the limit is 0.9999


@dataclass(frozen=True, slots=True)
class TextTower:
    """The half of an encoder that embeds words into the same space: `text.onnx` and `tokenizer.json`."""

    sha256: str  # of text.onnx, hexadecimal
    tokenizer_sha256: str  # of tokenizer.json
    context: int  # most tokens of a text, begin and end included; more are cut off
    log_scale: float  # natural logarithm of the factor on cosines that training learned


def read_source(table: Table) -> CentringSource:
    """Returns one source of the mean."""
    source = CentringSource(
        name=table.text("name"),
        licence=table.text("licence"),
        images=table.integer("images", 1, 10**9),
        packages=table.texts("packages"),
    )
    table.end()
    return source


def read_parity(table: Table) -> Parity:
    """Returns the parity with the source network."""
    parity = Parity(
        against=table.text("against"),
        batches=table.integers("batches"),
        max_difference=table.number("max_difference", 0.0, 2.0),
    )
    table.end()
    return parity


def read_gate(table: Table) -> Gate:
    """Returns what the gate measured."""
    gate = Gate(
        sources=table.text("sources"),
        images=table.integer("images", 1, 10**9),
        least_cosine=table.number("least_cosine", -1.0, 1.001),
        recall_at_10=table.number("recall_at_10", 0.0, 1.0),
        against=table.text("against", SHA256),
    )
    table.end()
    return gate


def read_weights(table: Table) -> Weights:
    """Returns where the weights came from."""
    weights = Weights(
        sha256=table.text("sha256", SHA256),
        are_published=table.truth("are_published"),
        cosine=table.number("cosine", -1.0, 1.0),
    )
    table.end()
    return weights


def read_text_tower(table: Table) -> TextTower:
    """Returns what the text tower is."""
    text = TextTower(
        sha256=table.text("sha256", SHA256),
        tokenizer_sha256=table.text("tokenizer_sha256", SHA256),
        context=table.integer("context", 2, 4096),
        log_scale=table.number("log_scale", 0.0, 10.0),
    )
    table.end()
    return text
