"""Image -> PNG for people and small JPEG for evidence pages."""

from __future__ import annotations

from io import BytesIO

import PIL.Image

from nearcase.types import Image

_THUMBNAIL_QUALITY = 80


def encode_png(image: Image) -> bytes:
    """Returns the pixels as a PNG file without any metadata; lossless."""
    out = BytesIO()
    PIL.Image.fromarray(image.pixels).save(out, "PNG")
    return out.getvalue()


def encode_thumbnail(image: Image, side: int = 160) -> bytes:
    """Returns a JPEG file without any metadata, its longer side at most side pixels, with the image's proportions.

    Args:
        image: What to show.
        side: In pixels; a smaller image keeps its size.
    """
    small = PIL.Image.fromarray(image.pixels)
    small.thumbnail((side, side), PIL.Image.Resampling.LANCZOS)
    out = BytesIO()
    small.save(out, "JPEG", quality=_THUMBNAIL_QUALITY)
    return out.getvalue()
