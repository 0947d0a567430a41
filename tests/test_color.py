"""Colour: the standard's equations on single pixels, palettes, planes, and codestreams that overrule the header."""

from __future__ import annotations

from typing import Any

import imagecodecs
import numpy as np
import pytest
from dicom_files import dicom_file
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydicom.uid import (
    JPEG2000,
    ExplicitVRBigEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
)

from nearcase.errors import InvalidInput
from nearcase.intake.dicom import read_dicom

LEVEL = st.integers(0, 255)


def ybr_of(red: int, green: int, blue: int) -> tuple[float, float, float]:
    """PS3.3 C.7.6.3.1.2, as it is printed there."""
    return (
        0.2990 * red + 0.5870 * green + 0.1140 * blue,
        -0.1687 * red - 0.3313 * green + 0.5000 * blue + 128,
        0.5000 * red - 0.4187 * green - 0.0813 * blue + 128,
    )


@given(LEVEL, LEVEL, LEVEL)
def test_ybr_full_comes_back_as_the_rgb_that_it_was(red: int, green: int, blue: int) -> None:
    ybr = np.array([[np.clip(np.rint(ybr_of(red, green, blue)), 0, 255)]]).astype(np.uint8)
    pixels = read_dicom(dicom_file(ybr, PhotometricInterpretation="YBR_FULL")).pixels[0, 0].astype(int)
    assert np.abs(pixels - (red, green, blue)).max() <= 2  # chroma is rounded to whole levels, and doubled coming back


def test_native_ybr_full_422_shares_chroma_between_two_pixels() -> None:
    data = dicom_file(np.zeros((1, 4, 3), np.uint8), PhotometricInterpretation="YBR_FULL_422", PixelData=bytes(
        [10, 20, 128, 128, 30, 40, 128, 128]))  # fmt: skip
    np.testing.assert_array_equal(read_dicom(data).pixels[0], [[10] * 3, [20] * 3, [30] * 3, [40] * 3])


def test_planes_and_pixels_are_the_same_picture() -> None:
    rgb = np.random.default_rng(1).integers(0, 256, (3, 5, 3)).astype(np.uint8)
    planes = dicom_file(rgb, PlanarConfiguration=1, PixelData=rgb.transpose(2, 0, 1).tobytes() + b"\0")
    np.testing.assert_array_equal(read_dicom(planes).pixels, rgb)
    np.testing.assert_array_equal(read_dicom(dicom_file(rgb)).pixels, rgb)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian], ids=lambda syntax: syntax.name)
def test_deep_colour_is_scaled_over_its_whole_range(syntax: Any) -> None:
    rgb = np.array([[[0, 257, 65_535], [0x8080, 0xFFFF, 1]]], np.uint16)
    image = read_dicom(dicom_file(rgb, syntax=syntax))
    np.testing.assert_array_equal(image.pixels, [[[0, 1, 255], [128, 255, 0]]])
    assert image.rules == ("16 bits scaled to 8",)


def test_big_endian_words_of_8_bit_samples_are_swapped_back() -> None:
    grey = np.array([[0, 85, 170, 255]], np.uint8)
    swapped = dicom_file(grey, syntax=ExplicitVRBigEndian, PixelData=bytes([85, 0, 255, 170]))
    # setattr keeps the element's VR, which the builder chose as OB; a word element must be named so
    np.testing.assert_array_equal(read_dicom(swapped.replace(b"OB\0\0", b"OW\0\0")).pixels, grey)


def palette(first: int, entries: list[int], bits: int, prefix: str = "") -> dict[str, Any]:
    kind = "<u2" if bits == 16 else "u1"
    attributes: dict[str, Any] = {}
    for color, factor in (("Red", 1), ("Green", 2), ("Blue", 3)):
        attributes[f"{color}PaletteColorLookupTableDescriptor"] = [len(entries), first, bits]
        values = np.array(entries if prefix else [entry * factor for entry in entries], kind)
        attributes[f"{prefix}{color}PaletteColorLookupTableData"] = values.tobytes()
    return attributes


def paletted(indices: NDArray[Any], attributes: dict[str, Any]) -> NDArray[Any]:
    image = read_dicom(dicom_file(indices, PhotometricInterpretation="PALETTE COLOR", **attributes))
    assert image.rules == ("palette applied",)
    return image.pixels


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_palettes_of_8_and_16_bits_take_the_nearest_end(dtype: type) -> None:
    indices: NDArray[Any] = np.array([[0, 10, 11, 12, 200]], dtype)
    np.testing.assert_array_equal(paletted(indices, palette(10, [0, 40, 80, 80], 8))[0], [
        [0, 0, 0], [0, 0, 0], [40, 80, 120], [80, 160, 240], [80, 160, 240]])  # fmt: skip
    np.testing.assert_array_equal(paletted(indices, palette(10, [0, 40 * 257, 80 * 257], 16))[0], [
        [0, 0, 0], [0, 0, 0], [40, 80, 120], [80, 160, 240], [80, 160, 240]])  # fmt: skip


def test_segmented_palettes_are_unfolded() -> None:
    """A discrete segment of two entries, then a line of three up to 250 (PS3.3 C.7.9.2)."""
    attributes = palette(0, [0, 2, 10, 100, 1, 3, 250, 0], 8, prefix="Segmented")
    for color in ("Red", "Green", "Blue"):
        attributes[f"{color}PaletteColorLookupTableDescriptor"] = [5, 0, 8]
    pixels = paletted(np.array([[0, 1, 2, 3, 4]], np.uint8), attributes)
    np.testing.assert_array_equal(pixels[0, :, 0], [10, 100, 150, 200, 250])


@pytest.mark.parametrize(
    "attributes", [{}, {"RedPaletteColorLookupTableDescriptor": [4, 0, 8], "RedPaletteColorLookupTableData": b"1234"}]
)
def test_a_palette_that_is_not_whole_is_refused(attributes: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput) as caught:
        read_dicom(dicom_file(np.zeros((2, 2), np.uint8), PhotometricInterpretation="PALETTE COLOR", **attributes))
    assert caught.value.reason == "BAD_LUT"


def picture() -> NDArray[np.uint8]:
    """Smooth, so that lossy codings stay near it."""
    ramp = np.linspace(0, 255, 32)
    rgb = np.stack(np.broadcast_arrays(ramp[:, None], ramp[None, ::-1], np.full((32, 32), 60.0)), axis=-1)
    return rgb.astype(np.uint8)


@pytest.mark.parametrize("claimed", ["RGB", "YBR_FULL_422", "YBR_FULL"])
@pytest.mark.parametrize("space", ["RGB", "YCBCR"])
def test_a_jpegs_own_markers_overrule_the_header(claimed: str, space: str) -> None:
    frame = imagecodecs.jpeg8_encode(picture(), level=95, colorspace="RGB", outcolorspace=space, subsampling="444")
    data = dicom_file(picture(), syntax=JPEGBaseline8Bit, compressed=[bytes(frame)], PhotometricInterpretation=claimed)
    assert np.abs(read_dicom(data).pixels.astype(int) - picture()).mean() < 2


@pytest.mark.parametrize("claimed", ["RGB", "YBR_RCT", "YBR_ICT"])
def test_jpeg_2000_undoes_its_own_colour_transform(claimed: str) -> None:
    frame = imagecodecs.jpeg2k_encode(picture(), level=0, codecformat="j2k", reversible=True, mct=True)
    data = dicom_file(picture(), syntax=JPEG2000, compressed=[bytes(frame)], PhotometricInterpretation=claimed)
    np.testing.assert_array_equal(read_dicom(data).pixels, picture())


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("syntax", [JPEG2000Lossless, HTJ2KLossless, JPEGLSLossless, JPEGLosslessSV1])
def test_lossless_colour_of_8_and_16_bits(syntax: Any, dtype: type) -> None:
    rgb: NDArray[Any] = np.random.default_rng(9).integers(0, np.iinfo(dtype).max + 1, (9, 14, 3)).astype(dtype)
    encoders: dict[Any, Any] = {
        JPEG2000Lossless: lambda: imagecodecs.jpeg2k_encode(
            rgb, level=0, codecformat="j2k", reversible=True, mct=False
        ),
        HTJ2KLossless: lambda: imagecodecs.htj2k_encode(rgb, reversible=True),
        JPEGLSLossless: lambda: imagecodecs.jpegls_encode(rgb),
        JPEGLosslessSV1: lambda: imagecodecs.jpeg8_encode(
            rgb, lossless=True, predictor=1, bitspersample=8 * rgb.itemsize, colorspace="RGB", outcolorspace="RGB"
        ),
    }
    data = dicom_file(rgb, syntax=syntax, compressed=[bytes(encoders[syntax]())])
    expected = np.rint(rgb / np.iinfo(dtype).max * 255.0)
    np.testing.assert_array_equal(read_dicom(data).pixels, expected)
