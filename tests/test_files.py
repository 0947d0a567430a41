"""PNG, JPEG and DICOM by their first bytes; the pixels are those that a viewer shows."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
import PIL.Image
import pytest
from dicom_files import CANARY, dicom_file
from numpy.typing import NDArray
from PIL.PngImagePlugin import PngInfo

from nearcase.errors import InvalidInput
from nearcase.intake.files import read_image
from nearcase.types import CaseFacts


def encoded(image: PIL.Image.Image, kind: str, **options: Any) -> bytes:
    out = BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def png(pixels: NDArray[Any], **options: Any) -> bytes:
    return encoded(PIL.Image.fromarray(pixels), "PNG", **options)


GREY = np.arange(0, 240, 2, dtype=np.uint8).reshape(10, 12)
RGB = np.random.default_rng(3).integers(0, 256, (10, 12, 3)).astype(np.uint8)


@pytest.mark.parametrize("pixels", [GREY, RGB], ids=["grey", "RGB"])
def test_png_comes_back_as_it_was(pixels: NDArray[np.uint8]) -> None:
    data = png(pixels)
    image = read_image(data)
    np.testing.assert_array_equal(image.pixels, pixels)
    assert image.media_type == "image/png"
    assert image.rules == ()
    assert image.is_color == (pixels is RGB)


def test_png_of_16_bits_is_scaled_over_its_whole_range() -> None:
    image = read_image(png(np.array([[0, 256, 257, 32_896, 65_535]], np.uint16)))
    np.testing.assert_array_equal(image.pixels, [[0, 1, 1, 128, 255]])
    assert image.rules == ("16 bits scaled to 8",)


def test_png_of_one_bit_is_black_and_white() -> None:
    image = read_image(encoded(PIL.Image.fromarray(GREY > 100), "PNG"))
    np.testing.assert_array_equal(image.pixels, (GREY > 100) * 255)


def test_palettes_become_rgb() -> None:
    indexed = PIL.Image.fromarray(GREY // 120)
    indexed.putpalette([10, 20, 30, 200, 100, 50])
    image = read_image(encoded(indexed, "PNG"))
    np.testing.assert_array_equal(image.pixels[0, 0], [10, 20, 30])
    np.testing.assert_array_equal(image.pixels[-1, -1], [200, 100, 50])


def test_what_is_transparent_is_black() -> None:
    rgba = np.dstack([RGB, np.full((10, 12), 255, np.uint8)])
    rgba[0, 0, 3], rgba[0, 1, 3] = 0, 128
    image = read_image(png(rgba))
    np.testing.assert_array_equal(image.pixels[0, 0], [0, 0, 0])
    np.testing.assert_allclose(image.pixels[0, 1], RGB[0, 1] * (128 / 255), atol=1)
    np.testing.assert_array_equal(image.pixels[1:], RGB[1:])
    assert image.rules == ("transparency on black",)


def test_grey_with_alpha_stays_grey_and_a_transparent_colour_is_black() -> None:
    grey = read_image(png(np.dstack([GREY, np.where(GREY > 100, 255, 0).astype(np.uint8)])))
    np.testing.assert_array_equal(grey.pixels, np.where(GREY > 100, GREY, 0))
    keyed = read_image(encoded(PIL.Image.fromarray(GREY), "PNG", transparency=int(GREY[-1, -1])))
    assert keyed.pixels[-1, -1].max() == 0


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK", "YCbCr"])
def test_jpeg_of_any_kind_looks_as_it_did(mode: str) -> None:
    smooth = PIL.Image.fromarray(np.dstack([np.linspace(0, 255, 1024).reshape(32, 32)] * 3).astype(np.uint8))
    image = read_image(encoded(smooth.convert(mode), "JPEG", quality=95))
    assert image.media_type == "image/jpeg"
    assert image.is_color == (mode != "L")
    shown = image.pixels[..., 0] if image.is_color else image.pixels
    assert np.abs(shown - np.asarray(smooth)[..., 0].astype(int)).mean() < 2


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_once(orientation: int) -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    turned = read_image(png(RGB, exif=exif)).pixels
    flipped = RGB[:, ::-1] if orientation in (2, 4, 5, 7) else RGB
    turns = {1: 0, 2: 0, 3: 2, 4: 2, 5: 1, 6: 3, 7: 3, 8: 1}[orientation]
    np.testing.assert_array_equal(turned, np.rot90(flipped, turns))


def test_text_in_the_file_is_not_taken_for_facts() -> None:
    words = PngInfo()
    words.add_text("PatientID", CANARY)
    assert read_image(png(GREY, pnginfo=words)).facts == CaseFacts()


def test_dicom_is_known_by_its_bytes_with_and_without_preamble() -> None:
    data = dicom_file(StudyInstanceUID="1.2.3")
    assert read_image(data).facts.study_uid == "1.2.3"
    assert read_image(data[132:]).media_type == "application/dicom"


@pytest.mark.parametrize(
    "data", [b"", b"x", b"GIF89a" + bytes(100), b"%PDF-1.7", b"BM" + bytes(60), bytes(500)], ids=repr
)
def test_anything_else_is_refused_in_words(data: bytes) -> None:
    with pytest.raises(InvalidInput, match="expected a DICOM, NIfTI, PNG or JPEG file") as caught:
        read_image(data)
    assert caught.value.reason == "UNKNOWN_FORMAT"


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_cut_files_are_refused(kind: str) -> None:
    whole = encoded(PIL.Image.fromarray(RGB), kind)
    for end in range(8, len(whole) - 20, 7):  # the last bytes hold no pixels
        with pytest.raises(InvalidInput):
            read_image(whole[:end])


def test_a_plain_image_has_one_frame() -> None:
    assert read_image(png(GREY), frame_number=1).frame_count == 1
    with pytest.raises(InvalidInput, match="expected frame 1 of a PNG file, got 2"):
        read_image(png(GREY), frame_number=2)
