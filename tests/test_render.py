"""PNG for people and thumbnails for pages: right pixels, right proportions, nothing else in the file."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from nearcase.intake.files import read_image
from nearcase.intake.render import encode_png, encode_thumbnail
from nearcase.types import CaseFacts, Image


def image_of(pixels: NDArray[np.uint8]) -> Image:
    return Image(pixels, CaseFacts(patient_id="CANARY4711"), "application/dicom", rules=("CANARY4711",))


@pytest.mark.parametrize("shape", [(7, 11), (7, 11, 3), (1, 1)])
def test_png_is_lossless_and_reads_back_as_the_same_image(shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(2).integers(0, 256, shape).astype(np.uint8)
    data = encode_png(image_of(pixels))
    np.testing.assert_array_equal(read_image(data).pixels, pixels)
    assert b"CANARY" not in data


@given(st.integers(1, 700), st.integers(1, 700), st.booleans())
def test_thumbnails_keep_the_proportions_within_a_pixel(rows: int, columns: int, is_color: bool) -> None:
    pixels = np.zeros((rows, columns, 3) if is_color else (rows, columns), np.uint8)
    with PIL.Image.open(BytesIO(encode_thumbnail(image_of(pixels)))) as small:
        assert small.format == "JPEG"
        assert small.mode == ("RGB" if is_color else "L")
        assert max(small.size) == min(160, max(rows, columns))
        scale = max(small.size) / max(rows, columns)
        assert small.size[0] == pytest.approx(max(columns * scale, 1), abs=1)
        assert small.size[1] == pytest.approx(max(rows * scale, 1), abs=1)


def test_a_thumbnail_looks_like_its_image() -> None:
    pixels = np.tile(np.linspace(0, 255, 640), (480, 1)).astype(np.uint8)
    with PIL.Image.open(BytesIO(encode_thumbnail(image_of(pixels), side=64))) as small:
        assert small.size == (64, 48)
        assert np.abs(np.asarray(small)[20].astype(float) - np.linspace(0, 255, 64)).max() < 6
