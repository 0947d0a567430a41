"""Pixels as a reader sees them -> the tensor that an encoder was trained on, exactly as its card says.

`resize` runs where the file was decoded, and its small uint8 result travels; `normalise` runs beside the encoder.

Stretch, not letterbox or centre crop: a crop loses the edge of a film, where a pneumothorax or an implant may be, and
black bars are structure that an encoder sees. On 31 real DICOM images of five modalities (pydicom and pydicom-data)
precision@1 by modality, other patients and studies only, was 0.64 stretched, 0.60 letterboxed and 0.64 cropped: no
difference that so few images could show, so the geometry decides. MedImageInsight was trained on stretched images too.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image as PillowImage

from nearcase.errors import InvalidInput

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Recipe:
    """How an encoder's input is made; part of every library's identity.

    "stretch" version 1: the frame is resized to size x size with Pillow's bicubic filter, antialiased, aspect ratio not
    kept; grey is repeated in three channels; values are divided by 255, then normalised with mean and std. A frame may
    be averaged over squares of pixels first, as long as two squares stay for each pixel that is needed: embeddings then
    keep a cosine of 0.999 (tests/test_reduction.py).

    "native480" version 1: MedImageInsight's own transform: "stretch" at 480 of the whole frame, which is not averaged.

    "azure512q75" version 1: what Microsoft's endpoint does before that transform: the frame is resized to 512 x 512 in
    the same way, and compressed as JPEG of quality 75 with colour at half resolution (Pillow's default). Embeddings of
    the two do not compare.
    """

    name: str
    version: int
    size_px: int
    mean: tuple[float, float, float]  # of red, green, blue on the scale 0 to 1
    std: tuple[float, float, float]

    @property
    def identity(self) -> str:
        """Name, version and size as one word: "stretch-1-224"."""
        return f"{self.name}-{self.version}-{self.size_px}"

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input of the network."""
        return (3, self.size_px, self.size_px)

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """Shape of what `resize` returns."""
        return (self.size_px, self.size_px, 3)

    @property
    def needed_px(self) -> int | None:
        """The short side, in pixels, that a frame may be averaged for; None where every pixel of it counts."""
        return self.size_px if (self.name, self.version) == STRETCH else None


STRETCH = ("stretch", 1)
NATIVE480 = ("native480", 1)
AZURE512Q75 = ("azure512q75", 1)
RECIPES: dict[tuple[str, int], int | None] = {STRETCH: None, NATIVE480: 480, AZURE512Q75: 480}
"""Names and versions of the recipes that this module carries out, and the one size of those that have one.

A card that asks for another is refused.
"""

_AZURE_PX, _AZURE_QUALITY = 512, 75


def resize(
    pixels: NDArray[np.uint8] | NDArray[np.float32],
    recipe: Recipe,
    frame_box: tuple[float, float, float, float] | None = None,
) -> NDArray[np.uint8]:
    """Returns (size, size, 3) uint8 of a frame, (rows, columns) grey or (rows, columns, 3) RGB, of any size.

    Args:
        pixels: The frame as uint8, or its means over squares of pixels as float32 on the same scale, 0 to 255.
        recipe: Says the size.
        frame_box: Where the frame lies in pixels (Image.frame_box).

    Raises:
        InvalidInput: The frame has another shape or type, or no pixels.
    """
    is_frame = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3)
    if pixels.dtype not in (np.uint8, np.float32) or not is_frame or pixels.size == 0:
        raise InvalidInput(f"Expected uint8 pixels (rows, columns) or (rows, columns, 3), got {_shape(pixels)}")
    if recipe.needed_px is None and (pixels.dtype != np.uint8 or frame_box is not None):
        raise InvalidInput(f"Expected the whole frame for {recipe.identity}, got {_shape(pixels)} averages")
    if (recipe.name, recipe.version) == AZURE512Q75:
        pixels = _standardised(pixels)
    size, bicubic = (recipe.size_px, recipe.size_px), PillowImage.Resampling.BICUBIC
    if pixels.dtype == np.uint8:
        frame = PillowImage.fromarray(np.ascontiguousarray(pixels))
        small = np.asarray(frame.resize(size, bicubic, frame_box))
    else:  # Pillow has no float pictures in colour
        channels = np.moveaxis(np.atleast_3d(pixels), 2, 0)
        frames = (PillowImage.fromarray(np.ascontiguousarray(channel)) for channel in channels)
        values = np.stack([np.asarray(frame.resize(size, bicubic, frame_box)) for frame in frames], axis=-1)
        small = np.rint(np.clip(values, 0.0, 255.0)).astype(np.uint8).squeeze()
    return small if small.ndim == 3 else np.repeat(small[:, :, None], 3, axis=2)


def _standardised(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """Returns the (512, 512, 3) RGB that Microsoft's endpoint makes of a frame before the model's own transform.

    Source: image_standardization_image_size and image_standardization_jpeg_compression_ratio of the endpoint's model
    card, and its wrapper's code (Azure/azureml-assets, medimage_embed_adapter_merge).
    """
    frame = PillowImage.fromarray(np.ascontiguousarray(pixels))
    small = frame.resize((_AZURE_PX, _AZURE_PX), PillowImage.Resampling.BICUBIC).convert("RGB")
    stream = io.BytesIO()
    small.save(stream, format="JPEG", quality=_AZURE_QUALITY)
    with PillowImage.open(stream) as compressed:
        return np.asarray(compressed.convert("RGB"))


def normalise(frames: NDArray[np.uint8], recipe: Recipe) -> NDArray[np.float32]:
    """Returns (N, 3, size, size) float32, (value / 255 - mean) / std, of (N, size, size, 3) uint8 frames.

    Raises:
        InvalidInput: The frames have another shape or type.
    """
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[1:] != (recipe.size_px, recipe.size_px, 3):
        raise InvalidInput(f"Expected uint8 frames (N, {recipe.size_px}, {recipe.size_px}, 3), got {_shape(frames)}")
    mean = np.asarray(recipe.mean, np.float64)
    std = np.asarray(recipe.std, np.float64)
    scale = (1.0 / (255.0 * std)).astype(np.float32).reshape(3, 1, 1)
    offset = (mean / std).astype(np.float32).reshape(3, 1, 1)
    batch = np.empty((len(frames), 3, recipe.size_px, recipe.size_px), np.float32)
    np.multiply(frames.transpose(0, 3, 1, 2), scale, out=batch)
    np.subtract(batch, offset, out=batch)
    return batch


def _shape(array: NDArray[np.generic]) -> str:
    return f"{array.dtype} {array.shape}"
