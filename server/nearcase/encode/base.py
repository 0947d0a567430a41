"""The Encoder seam: pixels that a card describes in, unit embeddings out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from nearcase.encode.card import Card


class Encoder(Protocol):
    """Turns preprocessed images into embeddings.

    Law: an image embeds the same alone, in any batch, and on any day (cosine > 0.9999).
    """

    @property
    def card(self) -> Card:
        """What this encoder is, and how its input is made."""
        ...

    @property
    def runtime(self) -> str:
        """What runs it now, for people: "onnxruntime 1.31.1 CPU"."""
        ...

    def embed(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns (N, D) unit embeddings of (N, 3, H, W) normalised images; blocks, and is safe in threads."""
        ...


class TextEncoder(Protocol):
    """Turns words into embeddings, in the space of an encoder's images.

    Law: a text embeds the same alone, among any others, and on any day (cosine > 0.9999).
    """

    def embed_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Returns (N, D) unit embeddings of N texts; blocks, and is safe in threads."""
        ...
