"""The text tower that travels with an image tower, and the tables of the card that tell of both."""

from __future__ import annotations

import shutil
from pathlib import Path

from nearcase.encode.card import Card
from nearcase.encode.card_tables import TextTower, Weights


def carry_text(card: Card, folder: Path) -> str:
    """Copies an encoder's text tower into the folder of another precision, and returns the tables that go with it.

    The text tower stays in fp32: it runs on the CPU and rarely, and its embeddings stay comparable.
    """
    if card.text:
        for path in (card.text_path, card.tokenizer_path, card.golden_text_path):
            shutil.copyfile(path, folder / path.name)
    return (weights_table(card.weights) if card.weights else "") + (text_table(card.text) if card.text else "")


def weights_table(weights: Weights) -> str:
    """Returns the card's table of the file that the encoder came from."""
    return (
        f'\n[weights]\nsha256 = "{weights.sha256}"\nare_published = {str(weights.are_published).lower()}\n'
        f"cosine = {weights.cosine:.6f}\n"
    )


def text_table(text: TextTower) -> str:
    """Returns the card's table of the text tower."""
    return (
        f'\n[text]\nsha256 = "{text.sha256}"\ntokenizer_sha256 = "{text.tokenizer_sha256}"\n'
        f"context = {text.context}\nlog_scale = {text.log_scale:.9f}\n"
    )
