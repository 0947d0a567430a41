"""The golden test: small images with the embeddings that they must give, on this machine, today.

The images go through the whole path, resizing included, so that a changed library for resizing is found as well as a
changed network or runtime.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nearcase.encode.inputs import golden_frame, to_batch
from nearcase.errors import Unready

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nearcase.encode.base import Encoder
    from nearcase.encode.card import Card

GOLDEN_LIMIT = 0.9999
"""Least cosine that counts as the same embedding: the law of `encode.base.Encoder`."""


@dataclass(frozen=True, slots=True)
class Golden:
    """Images, and the (N, D) unit embeddings that the encoder gave when it was built."""

    images: tuple[NDArray[np.generic], ...]  # pictures as uint8, or small volumes in Hounsfield units as int16
    embeddings: NDArray[np.float32]


def read_golden(card: Card) -> Golden:
    """Returns the golden images and embeddings of a card's folder.

    Raises:
        Unready: The file is not what nearcase writes: image_0 ... image_N and embeddings (N, D), without pickles.
    """
    try:
        with np.load(card.golden_path, allow_pickle=False) as arrays:
            embeddings = arrays["embeddings"]
            images = tuple(arrays[f"image_{number}"] for number in range(len(embeddings)))
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise Unready(
            "Expected golden.npz with embeddings and images, got another file", reason="GOLDEN_INVALID"
        ) from error
    is_whole = images and embeddings.shape == (len(images), card.dimension) and embeddings.dtype == np.float32
    if not is_whole or not np.allclose(np.linalg.norm(embeddings, axis=1), 1.0, atol=1e-3):
        raise Unready(
            f"Expected golden.npz with unit embeddings (N, {card.dimension}), got {embeddings.shape}",
            reason="GOLDEN_INVALID",
        )
    return Golden(images, embeddings)


def verify_golden(encoder: Encoder) -> float:
    """Returns the least cosine between a golden embedding and the one that this encoder gives now.

    Raises:
        Unready: The golden file can not be read.
    """
    golden = read_golden(encoder.card)
    recipe = encoder.card.recipe
    # One by one: a batch would leave the runtime's memory arena at the size of that batch while it idles.
    found = [encoder.embed(to_batch(golden_frame(image, recipe)[None], recipe))[0] for image in golden.images]
    cosines = np.sum(np.asarray(found, np.float64) * golden.embeddings, axis=1)
    return float(np.min(cosines))
