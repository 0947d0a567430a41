"""Averaged frames: the means they should be, in the place they should be, and embeddings that do not notice."""

from __future__ import annotations

import warnings
from io import BytesIO
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import PIL.Image
import pytest
from dicom_files import dicom_file
from films import film
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydicom.uid import JPEG2000Lossless
from tiny_encoders import picture_recipe

from nearcase.encode.base import Encoder
from nearcase.encode.preprocess import normalise, resize
from nearcase.encode.runtime import open_encoder
from nearcase.intake.codestream import read_codestream
from nearcase.intake.files import read_image
from nearcase.intake.reduction import averaged, frame_box, reduction_for
from nearcase.intake.wavelets import decode_halved, halvings_for
from nearcase.types import Image

LEAST_COSINE = 0.999
WINDOWS: dict[str, dict[str, Any]] = {
    "no window": {},
    "whole range": {"WindowCenter": 2048, "WindowWidth": 4096},
    "wide": {"WindowCenter": 2050, "WindowWidth": 2500},
    "narrow": {"WindowCenter": 1900, "WindowWidth": 600},
    "sigmoid": {"WindowCenter": 1800, "WindowWidth": 2000, "VOILUTFunction": "SIGMOID"},
}


def jpeg_2000(pixels: NDArray[Any], bits: int, **options: Any) -> bytes:
    return bytes(
        imagecodecs.jpeg2k_encode(pixels, level=0, codecformat="j2k", bitspersample=bits, reversible=True, **options)
    )


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 9), st.sampled_from(["u1", "u2", "i2", "u4"]))
def test_averages_are_the_means_of_the_squares(rows: int, columns: int, side: int, kind: str) -> None:
    info = np.iinfo(kind)
    values = np.random.default_rng(rows).integers(info.min, info.max, (rows, columns), dtype=kind, endpoint=True)
    found = averaged(values, min(side, rows, columns))
    side = min(side, rows, columns)
    assert found.shape == (-(-rows // side), -(-columns // side))
    for row, column in np.ndindex(found.shape):
        square = values[row * side : (row + 1) * side, column * side : (column + 1) * side]
        assert found[row, column] == pytest.approx(square.astype(float).mean(), rel=1e-5, abs=0.02)


def test_small_frames_and_whole_frames_are_never_averaged() -> None:
    assert reduction_for(3000, 2500, None) == 1
    assert reduction_for(672, 5000, 224) == 1
    assert reduction_for(1344, 5000, 224) == 2
    small = np.arange(600 * 500, dtype=np.uint16).reshape(600, 500)
    whole, asked = read_image(dicom_file(small)), read_image(dicom_file(small), needed_px=224)
    np.testing.assert_array_equal(whole.pixels, asked.pixels)
    assert asked.rules == whole.rules


@pytest.mark.parametrize(("rows", "columns"), [(1500, 1400), (1501, 1403), (1450, 1349)])
@pytest.mark.parametrize("is_jpeg_2000", [False, True])
def test_an_edge_stays_where_it_is(rows: int, columns: int, is_jpeg_2000: bool) -> None:
    """A picture that is dark on the left and bright on the right keeps the share of each to a thousandth."""
    pixels = np.zeros((rows, columns), np.uint16)
    edge = int(columns * 0.37) | 1
    pixels[:, edge:] = 4095
    given: dict[str, Any] = {"syntax": JPEG2000Lossless, "compressed": [jpeg_2000(pixels, 12)]} if is_jpeg_2000 else {}
    data = dicom_file(pixels, BitsStored=12, HighBit=11, WindowCenter=2048, WindowWidth=4096, **given)
    image = read_image(data, needed_px=100)
    assert image.reduction > 1
    left, top, right, bottom = image.frame_box or (0, 0, 0, 0)
    picture = PIL.Image.fromarray(image.pixels)
    strip = np.asarray(picture.resize((1000, 10), PIL.Image.Resampling.BOX, (left, top, right, bottom)))
    assert (strip < 127.5).sum(axis=1) / 1000 == pytest.approx(edge / columns, abs=0.0015)


def test_the_box_of_a_frame_that_is_whole_is_none() -> None:
    assert frame_box(100, 90, 0, 1) is None
    assert frame_box(100, 90, 0, 4) == (0, 0, 22.5, 25)
    assert frame_box(100, 90, 1, 1) == (0.25, 0.25, 45.25, 50.25)


@pytest.mark.parametrize(("dtype", "bits"), [("u1", 8), ("u2", 12), ("u2", 16), ("i2", 16), ("i2", 12)])
def test_halved_frames_are_near_the_means(dtype: str, bits: int) -> None:
    offset = 1 << bits - 1 if dtype[0] == "i" else 0
    pixels = (film(3, 300, 261).astype(np.int32) * ((1 << bits) - 1) // 4095 - offset).astype(dtype)
    frame = jpeg_2000(pixels, bits)
    stream = read_codestream(frame)
    assert halvings_for(stream, 0) == 0
    assert halvings_for(stream, 1) == 1
    halved = decode_halved(frame, stream, 1)[:-1, :-1]
    assert halved.dtype == pixels.dtype
    difference = halved[:150, :130] - averaged(pixels, 2)[:150, :130]
    assert abs(difference.mean()) < 0.002 * (1 << bits)


def test_no_more_halvings_than_the_codestream_has_levels() -> None:
    stream = read_codestream(jpeg_2000(film(1, 640, 640), 16, resolutions=2))
    assert stream.levels == 1
    assert halvings_for(stream, 5) == 1


# Embeddings


@pytest.fixture(scope="module")
def encoder(encoder_folder: Path) -> Encoder:
    return open_encoder(encoder_folder)


def cosine(encoder: Encoder, data: bytes) -> tuple[float, Image]:
    recipe = picture_recipe(encoder.card)
    whole, fast = read_image(data), read_image(data, needed_px=recipe.size_px)
    frames = np.stack([resize(each.pixels, recipe, each.frame_box) for each in (whole, fast)])
    first, second = encoder.embed(normalise(frames[:1], recipe))[0], encoder.embed(normalise(frames[1:], recipe))[0]
    return float(first @ second), fast


@pytest.mark.parametrize("name", ["MR2_UNCR", "RG1_UNCR", "RG1_J2KI", "RG1_J2KR", "RG3_UNCR", "RG3_J2KI", "RG3_J2KR"])
def test_real_radiographs_embed_the_same(encoder: Encoder, pydicom_data: Path, name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        similarity, image = cosine(encoder, (pydicom_data / f"{name}.dcm").read_bytes())
    assert similarity >= LEAST_COSINE
    assert (image.reduction > 1) == (min(image.pixels.shape) < 1024)


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_films_embed_the_same(encoder: Encoder, window: str, photometric: str) -> None:
    pixels = film(1, 1999, 1801)
    data = dicom_file(
        pixels, BitsStored=12, HighBit=11, Modality="DX", PhotometricInterpretation=photometric, **WINDOWS[window]
    )
    similarity, image = cosine(encoder, data)
    assert similarity >= LEAST_COSINE
    assert image.reduction == 2


@pytest.mark.parametrize(("window", "reduction"), [("whole range", 2), ("wide", 2), ("narrow", 2), ("no window", 2)])
def test_jpeg_2000_films_embed_the_same(encoder: Encoder, window: str, reduction: int) -> None:
    pixels = film(2, 1999, 1801)
    frame = jpeg_2000(pixels, 12)
    data = dicom_file(pixels, syntax=JPEG2000Lossless, compressed=[frame], BitsStored=12, HighBit=11, **WINDOWS[window])
    similarity, image = cosine(encoder, data)
    assert similarity >= LEAST_COSINE
    assert image.reduction == reduction
    # Only where the window cuts off little is the codec asked for less: the box then begins inside the first sample.
    assert image.frame_box is not None
    assert (image.frame_box[0] > 0) == (window in ("whole range", "wide"))


def test_grey_jpeg_films_embed_the_same_and_photographs_stay_whole(encoder: Encoder) -> None:
    grey = PIL.Image.fromarray((film(4, 1999, 1801) >> 4).astype(np.uint8))
    similarity, image = cosine(encoder, jpeg(grey))
    assert similarity >= LEAST_COSINE
    assert image.reduction == 2
    assert read_image(jpeg(grey.convert("RGB")), needed_px=224).reduction == 1


def jpeg(picture: PIL.Image.Image) -> bytes:
    out = BytesIO()
    picture.save(out, "JPEG", quality=92)
    return out.getvalue()


def test_float_frames_resize_as_whole_ones_do(encoder: Encoder) -> None:
    recipe = picture_recipe(encoder.card)
    levels: NDArray[np.uint8] = (film(5, 500, 400) >> 4).astype(np.uint8)
    difference = resize(levels, recipe).astype(int) - resize(levels.astype(np.float32), recipe)
    assert np.abs(difference).max() <= 1
    color = np.dstack([levels, levels[::-1], 255 - levels])
    difference = resize(color, recipe).astype(int) - resize(color.astype(np.float32), recipe)
    assert np.abs(difference).max() <= 1
