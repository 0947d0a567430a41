"""Writes `golden.npz`: small images, and the embeddings that an encoder gave for them when it was built."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from nearcase.encode.preprocess import Recipe, normalise, resize

Embed = Callable[[NDArray[np.float32]], NDArray[np.float32]]


def write_golden(path: Path, images: list[NDArray[np.uint8]], recipe: Recipe, embed: Embed) -> None:
    """Writes the images and their embeddings; the same inputs give the same bytes."""
    frames = np.stack([resize(image, recipe) for image in images])
    arrays: dict[str, Any] = {f"image_{number}": image for number, image in enumerate(images)}
    np.savez_compressed(path, embeddings=embed(normalise(frames, recipe)), **arrays)


def golden_images(photograph: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """Returns a disc on a ramp, smooth colour, fine grain and a small real photograph; shapes differ on purpose."""
    real = PillowImage.fromarray(photograph).resize((112, 112), PillowImage.Resampling.LANCZOS)
    return [*drawn_images(), np.asarray(real)]


def drawn_images() -> list[NDArray[np.uint8]]:
    """Returns the three of them that are drawn, for an encoder that is imported where there is no photograph."""
    return [_disc(96, 160), _colour(61, 47), _grain(230, 90)]


def _disc(rows: int, columns: int) -> NDArray[np.uint8]:
    y, x = np.mgrid[0:rows, 0:columns]
    ramp = x * 160 // columns
    inside = (y - rows // 2) ** 2 + (x - columns // 2) ** 2 < (rows // 3) ** 2
    picture: NDArray[np.uint8] = np.where(inside, 255 - ramp, ramp).astype(np.uint8)
    return picture


def _colour(rows: int, columns: int) -> NDArray[np.uint8]:
    coarse = np.random.default_rng(20).integers(0, 256, (5, 4, 3), dtype=np.uint8)
    return np.asarray(PillowImage.fromarray(coarse).resize((columns, rows), PillowImage.Resampling.BICUBIC))


def _grain(rows: int, columns: int) -> NDArray[np.uint8]:
    return (np.random.default_rng(21).integers(0, 4, (rows, columns)) * 40 + 60).astype(np.uint8)
