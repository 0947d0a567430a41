"""What travels with an image tower into another precision: the text tower, byte for byte, and its tables."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from nearcase.encode.card import Card, default_encoder_folder, read_card
from nearcase.encode.card_tables import TextTower, Weights

pytest.importorskip("torch", reason="the importers need torch: pip install nearcase[models]")

from nearcase_models.towers import carry_text


def test_the_text_tower_and_its_tables_are_carried(words_encoder_folder: Path, tmp_path: Path) -> None:
    card = read_card(words_encoder_folder)
    tables = tomllib.loads(carry_text(card, tmp_path))
    assert TextTower(**tables["text"]) == card.text
    assert Weights(**tables["weights"]) == card.weights
    for name in ("text.onnx", "tokenizer.json", "golden_text.npz"):
        assert (tmp_path / name).read_bytes() == (words_encoder_folder / name).read_bytes()


def test_an_encoder_without_words_carries_nothing(tmp_path: Path) -> None:
    card: Card = read_card(default_encoder_folder())
    assert carry_text(card, tmp_path) == ""
    assert not list(tmp_path.iterdir())
