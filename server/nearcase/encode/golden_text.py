"""The golden test of a text tower: texts with the embeddings that they must give, tokenizer included."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nearcase.errors import Unready

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nearcase.encode.base import TextEncoder
    from nearcase.encode.card import Card


@dataclass(frozen=True, slots=True)
class GoldenText:
    """Texts, and the (N, D) unit embeddings that the tower gave when it was exported."""

    texts: tuple[str, ...]
    embeddings: NDArray[np.float32]


def read_golden_text(card: Card) -> GoldenText:
    """Returns the golden texts and embeddings of a card's folder.

    Raises:
        Unready: The file is not what nearcase writes: texts (N) and embeddings (N, D), without pickles.
    """
    try:
        with np.load(card.golden_text_path, allow_pickle=False) as arrays:
            texts, embeddings = arrays["texts"], arrays["embeddings"]
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise Unready(
            "Expected golden_text.npz with texts and embeddings, got another file", reason="GOLDEN_INVALID"
        ) from error
    is_whole = texts.dtype.kind == "U" and texts.ndim == 1 and len(texts) and embeddings.dtype == np.float32
    if not is_whole or embeddings.shape != (len(texts), card.dimension):
        raise Unready(
            f"Expected golden_text.npz with texts and float32 embeddings (N, {card.dimension}), got {embeddings.shape}",
            reason="GOLDEN_INVALID",
        )
    if not np.allclose(np.linalg.norm(embeddings, axis=1), 1.0, atol=1e-3):
        raise Unready("Expected unit embeddings in golden_text.npz, got others", reason="GOLDEN_INVALID")
    return GoldenText(tuple(map(str, texts)), embeddings)


def verify_golden_text(encoder: TextEncoder, card: Card) -> float:
    """Returns the least cosine between a golden embedding and the one that the tower gives now.

    Raises:
        Unready: The golden file can not be read.
    """
    golden = read_golden_text(card)
    found = encoder.embed_texts(golden.texts).astype(np.float64)
    return float(np.min(np.sum(found * golden.embeddings, axis=1)))
