"""Colour samples -> RGB of 8 bits (PS3.3 C.7.6.3.1.2, C.7.6.3.1.5, C.7.9)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_color_lut

from nearcase.errors import InvalidInput
from nearcase.intake.frames import swapped_words

# The matrix of PS3.3 C.7.6.3.1.2 for YBR_FULL, inverted, with 0.5 of the range taken off both chroma samples.
_FROM_CHROMA = np.array(((0.0, 1.402), (-0.344136, -0.714136), (1.772, 0.0)), dtype=np.float32)


def rgb_from_samples(samples: NDArray[np.unsignedinteger], bits: int) -> NDArray[np.uint8]:
    """Returns 8-bit RGB of (rows, columns, 3) samples with so many bits, scaled over the whole range."""
    if bits == 8 and samples.dtype == np.uint8:
        return np.ascontiguousarray(samples)
    top = np.float64((1 << bits) - 1)
    return np.rint(np.clip(samples / top, 0.0, 1.0) * 255.0).astype(np.uint8)


def rgb_from_ybr_full(ybr: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Returns RGB of (rows, columns, 3) YBR_FULL samples (PS3.3 C.7.6.3.1.2)."""
    luma = ybr[..., :1].astype(np.float32)
    chroma = ybr[..., 1:].astype(np.float32) - np.float32(128.0)
    rgb = luma + chroma @ _FROM_CHROMA.T
    return np.rint(np.clip(rgb, 0.0, 255.0)).astype(np.uint8)


def ybr_full_from_422(data: bytes, rows: int, columns: int) -> NDArray[np.uint8]:
    """Returns (rows, columns, 3) YBR_FULL of native YBR_FULL_422: two lumas, then the chroma of the left pixel."""
    pairs = np.frombuffer(data, np.uint8).reshape(rows, columns // 2, 4)
    full = np.empty((rows, columns, 3), np.uint8)
    full[:, 0::2, 0], full[:, 1::2, 0] = pairs[..., 0], pairs[..., 1]
    full[:, 0::2, 1:] = full[:, 1::2, 1:] = pairs[..., 2:]
    return full


def rgb_from_palette(stored: NDArray[np.integer], dataset: Dataset, byte_order: str) -> NDArray[np.uint8]:
    """Returns RGB of (rows, columns) palette indices, plain or segmented palettes of 8 or 16 bits (PS3.3 C.7.9).

    Args:
        stored: The indices.
        dataset: Holds the palette.
        byte_order: "<" or ">", in which the dataset was written.

    Raises:
        InvalidInput: The palette is missing or malformed.
    """
    index = stored.view(f"u{stored.dtype.itemsize}")
    domain = np.arange(1 << 8 * stored.dtype.itemsize, dtype=index.dtype).view(stored.dtype)
    try:
        ordered = _plain_palette_in_order(dataset) if byte_order == ">" else dataset
        table = apply_color_lut(domain, ordered)[:, :3]  # the palette of each index there can be
    except (MemoryError, RecursionError):
        raise
    except Exception:
        raise InvalidInput(
            "expected a red, green and blue palette, got none or a malformed one",
            reason="BAD_LUT",
            field="RedPaletteColorLookupTableDescriptor",
        ) from None
    palette = rgb_from_samples(np.ascontiguousarray(table), 8 * table.dtype.itemsize)
    rgb: NDArray[np.uint8] = np.take(palette, index, axis=0)  # several times faster than palette[index]
    return rgb


def _plain_palette_in_order(dataset: Dataset) -> Dataset:
    """pydicom knows the byte order of segmented palettes only, and reads plain ones as little endian."""
    ordered = Dataset()
    for name in (f"{color}PaletteColorLookupTable" for color in ("Red", "Green", "Blue")):
        data: object = dataset.get(f"{name}Data")
        if not isinstance(data, bytes):
            return dataset
        setattr(ordered, f"{name}Descriptor", dataset[f"{name}Descriptor"].value)
        setattr(ordered, f"{name}Data", swapped_words(data))
    return ordered
