"""What an encoder must beat: grey pixels and oriented gradients, embedded, searched and judged as an encoder is.

Both stand behind the server's Encoder protocol, so that everything around them is equal. Their values are the same on
any machine up to rounding; nothing is learned.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nearcase.encode.card import Card
from nearcase.encode.preprocess import STRETCH, Recipe
from nearcase.errors import NotFound

LUMA = np.array([0.299, 0.587, 0.114], np.float32)
"""Y of RGB, ITU-R BT.601, as in YBR_FULL (PS3.3 C.7.6.3.1.2)."""

BINS = 9
CELL_PX = 8
BLOCK_CELLS = 2
SOFTENING = 1e-2
CLIP = 0.2
FLAT = 1e-4
"""Length below which an image has no structure: rounding alone leaves about 1e-6."""

Floats = NDArray[np.float32]


class PixelEncoder:
    """A fixed function of the pixels as an Encoder; see `baseline`."""

    def __init__(self, card: Card, features: Callable[[Floats], Floats]) -> None:
        self._card, self._features = card, features

    @property
    def card(self) -> Card:
        """What this is, and how its input is made."""
        return self._card

    @property
    def runtime(self) -> str:
        """What runs it."""
        return f"NumPy {np.__version__}"

    def embed(self, batch: Floats) -> Floats:
        """Returns (N, D) unit vectors of (N, 3, H, W) images; an image without any structure gets equal values."""
        vectors = self._features(np.tensordot(LUMA, batch, (0, 1)).astype(np.float32))
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        vectors = np.where(lengths > FLAT, vectors, 1.0)
        units: Floats = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
        return units


def baseline(name: str) -> PixelEncoder:
    """Returns the baseline "grey" or "hog".

    Raises:
        NotFound: There is none of this name.
    """
    if name not in BASELINES:
        raise NotFound(f"expected a baseline ({', '.join(BASELINES)}), got {name!r}")
    return BASELINES[name]()


def grey(pictures: Floats) -> Floats:
    """Returns (N, H x W): each picture less its own mean."""
    rows = pictures.reshape(len(pictures), -1)
    centred: Floats = rows - rows.mean(axis=1, keepdims=True)
    return centred


def hog(pictures: Floats) -> Floats:
    """Returns (N, blocks x blocks x cells x bins) histograms of oriented gradients.

    Central differences, unsigned angles in nine bins with linear shares, cells of 8 x 8 px, blocks of 2 x 2 cells at
    every cell, each block clipped at 0.2 between two normalisations (Dalal and Triggs 2005, L2-Hys).

    Args:
        pictures: (N, S, S) grey values of 0 to 1, S a multiple of 8.
    """
    down = np.zeros_like(pictures)
    right = np.zeros_like(pictures)
    down[:, 1:-1] = pictures[:, 2:] - pictures[:, :-2]
    right[:, :, 1:-1] = pictures[:, :, 2:] - pictures[:, :, :-2]
    return _blocks(_cells(np.hypot(right, down), np.arctan2(down, right)))


def _cells(size: Floats, angle: Floats) -> Floats:
    """Returns (N, cells, cells, bins): each pixel's gradient shared between the two bins that are nearest."""
    place = np.mod(angle, np.pi) / np.pi * BINS - 0.5
    lower = np.floor(place)
    share = place - lower
    count, cells = len(size), size.shape[1] // CELL_PX
    found = np.zeros((count, cells, cells, BINS), np.float32)
    for step, weight in ((0, 1.0 - share), (1, share)):
        bins = np.mod(lower + step, BINS).astype(np.int64)
        for number in range(BINS):
            part = np.where(bins == number, size * weight, 0.0)
            found[..., number] += part.reshape(count, cells, CELL_PX, cells, CELL_PX).sum(axis=(2, 4))
    return found


def _blocks(cells: Floats) -> Floats:
    side = cells.shape[1] - BLOCK_CELLS + 1
    corners = [(row, column) for row in range(BLOCK_CELLS) for column in range(BLOCK_CELLS)]
    blocks = np.concatenate([cells[:, r : r + side, c : c + side] for r, c in corners], axis=-1)
    normed = _normed(np.minimum(_normed(blocks), CLIP))
    flat: Floats = normed.reshape(len(cells), -1)
    return flat


def _normed(blocks: Floats) -> Floats:
    normed: Floats = blocks / np.sqrt(np.sum(blocks**2, axis=-1, keepdims=True) + SOFTENING**2)
    return normed


def _grey() -> PixelEncoder:
    return PixelEncoder(_card("grey32", "grey pixels, centred", 32, 32 * 32), grey)


def _hog() -> PixelEncoder:
    side_px = 128
    blocks = side_px // CELL_PX - BLOCK_CELLS + 1
    dimension = blocks * blocks * BLOCK_CELLS * BLOCK_CELLS * BINS
    return PixelEncoder(_card("hog128", "histograms of oriented gradients", side_px, dimension), hog)


BASELINES: Mapping[str, Callable[[], PixelEncoder]] = {"grey": _grey, "hog": _hog}


def _card(name: str, what: str, size_px: int, dimension: int) -> Card:
    """A card without files; a change of the function must change the version, and with it what a cache is good for."""
    version = "1"
    return Card(
        folder=Path(),
        name=name,
        version=version,
        description=f"Baseline: {what} at {size_px} x {size_px} px",
        origin="nearcase_eval.baselines",
        licence="Apache-2.0",
        statement=f"Baseline of {what}: not an encoder, not medical, only for comparison.",
        is_medical=False,
        dimension=dimension,
        opset=0,
        precision="fp32",
        sha256=hashlib.sha256(f"{name} {version}".encode()).hexdigest(),
        recipe=Recipe(*STRETCH, size_px, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
    )
