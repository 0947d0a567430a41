"""What travels from a decoding child to an encoder, for encoders of pictures and of volumes alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nearcase.encode.preprocess import Recipe, normalise, resize
from nearcase.encode.volume import AXIAL, VolumeRecipe, fit_volume
from nearcase.errors import InvalidInput

Frame = NDArray[np.generic]
"""One input before it is normalised: a picture (uint8), or a block of voxels from 0 to 1 (float32)."""

AnyRecipe = Recipe | VolumeRecipe


def recipe_from_words(words: Mapping[str, Any]) -> AnyRecipe:
    """Returns the recipe that `dataclasses.asdict` made words of, for the way into a child process."""
    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in words.items()}
    return VolumeRecipe(**values) if "shape_voxels" in values else Recipe(**values)


def unpack_frame(data: bytes, recipe: AnyRecipe) -> Frame:
    """Returns the frame that a child sent as bytes.

    Raises:
        InvalidInput: The bytes are no frame of this recipe; the child is not trusted.
    """
    kind: type[np.generic] = np.float32 if isinstance(recipe, VolumeRecipe) else np.uint8
    if len(data) != int(np.prod(recipe.frame_shape)) * np.dtype(kind).itemsize:
        raise InvalidInput("reading this file gave no frame that makes sense", reason="DECODE_CRASH")
    return np.frombuffer(data, kind).reshape(recipe.frame_shape)


def to_batch(frames: Frame, recipe: AnyRecipe) -> NDArray[np.float32]:
    """Returns the network's input for stacked frames (N, ...).

    Raises:
        InvalidInput: The frames have another shape or type than the recipe says.
    """
    if isinstance(recipe, Recipe):
        return normalise(frames, recipe)  # type: ignore[arg-type]  # it checks
    if frames.dtype != np.float32 or frames.shape[1:] != recipe.frame_shape:
        raise InvalidInput(f"Expected float32 volumes (N, *{recipe.frame_shape}), got {frames.dtype} {frames.shape}")
    return frames[:, np.newaxis].astype(np.float32, copy=False)


def golden_frame(image: NDArray[np.generic], recipe: AnyRecipe) -> Frame:
    """Returns the frame of a golden image: pixels in bytes, or the Hounsfield units of a small axial volume.

    Raises:
        InvalidInput: It is neither, whichever the recipe takes.
    """
    if isinstance(recipe, Recipe):
        return resize(image, recipe)  # type: ignore[arg-type]  # it checks
    if image.dtype != np.int16 or image.ndim != 3 or 0 in image.shape:
        raise InvalidInput(f"Expected int16 voxels (slices, rows, columns), got {image.dtype} {image.shape}")
    slices, rows, columns = image.shape
    return fit_volume(lambda number: image[number].astype(np.float32), (slices, rows, columns), AXIAL, recipe)
