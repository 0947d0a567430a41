"""Image -> PNG for people and small JPEG for evidence pages."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import PIL.Image

from nearcase.types import Image

THUMBNAIL_PX = 160
_THUMBNAIL_QUALITY = 80


def encode_png(image: Image) -> bytes:
    """Returns the pixels as a PNG file without any metadata; lossless."""
    out = BytesIO()
    PIL.Image.fromarray(image.pixels).save(out, "PNG")
    return out.getvalue()


def encode_thumbnail(image: Image, side: int = THUMBNAIL_PX) -> bytes:
    """Returns a JPEG file without any metadata, its longer side at most side pixels, with the image's proportions.

    Args:
        image: What to show.
        side: In pixels; a smaller image keeps its size.
    """
    pixels = image.pixels if image.pixels.dtype == np.uint8 else np.rint(image.pixels).astype(np.uint8)
    whole = PIL.Image.fromarray(pixels)
    left, top, right, bottom = image.frame_box or (0, 0, *whole.size)
    scale = min(side / max(right - left, bottom - top), 1.0)
    size = (max(round((right - left) * scale), 1), max(round((bottom - top) * scale), 1))
    small = whole.resize(size, PIL.Image.Resampling.LANCZOS, (left, top, right, bottom), reducing_gap=2.0)
    out = BytesIO()
    small.save(out, "JPEG", quality=_THUMBNAIL_QUALITY)
    return out.getvalue()
