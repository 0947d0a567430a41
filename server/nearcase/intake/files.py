"""Bytes of any accepted kind -> Image: the first bytes say which reader, never a name or a content type."""

from __future__ import annotations

import warnings
from io import BytesIO

import numpy as np
import PIL.Image
import PIL.ImageOps
from numpy.typing import NDArray

from nearcase.errors import InvalidInput, NearcaseError
from nearcase.intake.burned_in import KEEP_TEXT, TextPolicy, check_plain
from nearcase.intake.dicom import read_dicom
from nearcase.intake.header import MAX_FRAME_PIXELS
from nearcase.intake.nifti import is_nifti, read_nifti_image
from nearcase.intake.parse import is_dicom
from nearcase.intake.reduction import averaged_levels, frame_box, reduction_for
from nearcase.types import CaseFacts, Image

_SIGNATURES = {b"\x89PNG\r\n\x1a\n": "PNG", b"\xff\xd8\xff": "JPEG"}
_DEEP_GREY = ("I;16", "I;16B", "I;16L", "I;16N", "I")  # what Pillow calls a PNG of 16 bits
_WITH_ALPHA = ("LA", "La", "PA", "RGBA", "RGBa")


def read_image(
    data: bytes,
    *,
    frame_number: int | None = None,
    text_policy: TextPolicy = KEEP_TEXT,
    needed_px: int | None = None,
) -> Image:
    """Returns one frame of a DICOM, PNG or JPEG file, or one axial slice of a NIfTI file.

    Args:
        data: The file's bytes. Call this in a sandbox.
        frame_number: Counts from 1; the middle frame when left out. PNG and JPEG have one.
        text_policy: What is done about burned-in text.
        needed_px: Length of the short side that the caller needs; a much larger frame may come averaged, which is
            many times faster. None for the whole frame.

    Raises:
        InvalidInput: The bytes are of none of these kinds, or damaged, or too large, or the policy refuses them.
        Unsupported: A DICOM object that is no image, or a coding that nothing here decodes.
    """
    if is_dicom(data):
        return read_dicom(data, frame_number=frame_number, text_policy=text_policy, needed_px=needed_px)
    kind = next((kind for start, kind in _SIGNATURES.items() if data.startswith(start)), None)
    if kind is None and is_nifti(data):
        check_plain("NIfTI", text_policy)
        return read_nifti_image(data, frame_number=frame_number)
    if kind is None:
        raise InvalidInput("expected a DICOM, NIfTI, PNG or JPEG file, got other bytes", reason="UNKNOWN_FORMAT")
    check_plain(kind, text_policy)
    if frame_number not in (None, 1):
        raise InvalidInput(
            f"expected frame 1 of a {kind} file, got {frame_number}", reason="NO_SUCH_FRAME", field="frame"
        )
    pixels, rules = _read_plain(data, kind)
    side = 1 if pixels.ndim == 3 else reduction_for(pixels.shape[0], pixels.shape[1], needed_px)
    reduced = (f"averaged over {side} x {side} pixels",) if side > 1 else ()
    return Image(
        pixels=averaged_levels(pixels, side),
        facts=CaseFacts(),  # their text fields are anybody's words
        media_type=f"image/{kind.lower()}",
        rules=(*reduced, *rules),
        reduction=side,
        frame_box=frame_box(pixels.shape[0], pixels.shape[1], 0, side),
    )


def _read_plain(data: bytes, kind: str) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with PIL.Image.open(BytesIO(data), formats=(kind,)) as opened:
                _check_size(opened.size)
                return _pixels(opened)
        except NearcaseError:
            raise
        except PIL.Image.DecompressionBombError:
            raise _too_large("more than twice as many") from None
        except MemoryError:
            raise InvalidInput("reading this file ended in MemoryError", reason="DECODE_LIMIT") from None
        except Exception as error:  # Pillow's plug-ins raise whatever their parsers raise
            raise InvalidInput(
                f"expected a sound {kind} file, got a damaged one ({type(error).__name__})", reason="DAMAGED_IMAGE"
            ) from None


def _check_size(size: tuple[int, int]) -> None:
    if size[0] * size[1] > MAX_FRAME_PIXELS:
        raise _too_large(str(size[0] * size[1]))


def _too_large(found: str) -> InvalidInput:
    return InvalidInput(f"expected at most {MAX_FRAME_PIXELS} pixels, got {found}", reason="IMAGE_TOO_LARGE")


def _pixels(opened: PIL.Image.Image) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    rules: list[str] = []
    image: PIL.Image.Image = PIL.ImageOps.exif_transpose(opened)
    if opened.getexif().get(0x0112, 1) != 1:
        rules.append("turned as EXIF says")
    if image.mode in _DEEP_GREY:
        return _from_16_bits(np.asarray(image)), (*rules, "16 bits scaled to 8")
    if image.mode in _WITH_ALPHA or "transparency" in image.info:
        image = _on_black(image)
        rules.append("transparency on black")
    if image.mode not in ("L", "RGB"):
        rules.append(f"{image.mode} as {'L' if image.mode == '1' else 'RGB'}")
        image = image.convert("L" if image.mode == "1" else "RGB")
    return np.array(image, dtype=np.uint8), tuple(rules)


def _from_16_bits(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    levels: NDArray[np.uint8] = np.rint(values.astype(np.float32) / np.float32(257.0)).astype(np.uint8)
    return levels


def _on_black(image: PIL.Image.Image) -> PIL.Image.Image:
    is_grey = image.mode in ("L", "LA", "La")
    layer = image.convert("RGBA")
    black = PIL.Image.new("RGBA", layer.size, (0, 0, 0, 255))
    return PIL.Image.alpha_composite(black, layer).convert("L" if is_grey else "RGB")
