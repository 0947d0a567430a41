"""The text embeddings that a finding's prompts are scored with."""

from __future__ import annotations

from pathlib import Path

from nearcase.decide.finding import Finding
from nearcase.decide.prompt import PromptHead, prompt_head
from nearcase.encode.card import read_card
from nearcase.encode.text import open_text, tower_of
from nearcase.errors import InvalidInput


def prompts_of(finding: Finding, folder: Path, identity: str) -> PromptHead | None:
    """Returns the head of the finding's prompts; None where its scorer uses none.

    Args:
        finding: Has the templates and the names.
        folder: The encoder's.
        identity: Of the encoder that the images were embedded with, which must be this one.

    Raises:
        InvalidInput: The images were embedded with another encoder.
        Unsupported: The encoder has no text tower.
        Unready: Its text tower can not be loaded.
    """
    if "prompt" not in dict(finding.scorer.parts):
        return None
    card = read_card(folder)
    if card.identity != identity:
        raise InvalidInput(f"expected the encoder {identity} for its prompts, got {card.identity}", field="encoder")
    scale, encoder = tower_of(card).log_scale, open_text(card)
    texts = finding.scorer.texts()
    return prompt_head([value for value, _ in texts], [encoder.embed_texts(each) for _, each in texts], scale)
