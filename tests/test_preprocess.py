"""Resizing and normalising: laws that hold for any picture, and a float64 oracle."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image as PillowImage

from nearcase.encode.preprocess import AZURE512Q75, NATIVE480, STRETCH, Recipe, normalise, resize
from nearcase.errors import InvalidInput

SIZE = 64
RECIPE = Recipe(*STRETCH, size_px=SIZE, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))

sides = st.integers(1, 300)
seeds = st.integers(0, 2**32 - 1)


def noise(seed: int, *shape: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@given(seeds, sides, sides)
def test_grey_equals_the_same_picture_in_three_channels(seed: int, rows: int, columns: int) -> None:
    grey = noise(seed, rows, columns)
    colour = np.repeat(grey[:, :, None], 3, axis=2)
    small = resize(grey, RECIPE)
    assert small.shape == (SIZE, SIZE, 3)
    assert small.dtype == np.uint8
    np.testing.assert_array_equal(small, resize(colour, RECIPE))


@given(seeds, st.booleans())
def test_a_picture_of_the_right_size_is_unchanged(seed: int, is_colour: bool) -> None:
    picture = noise(seed, SIZE, SIZE, 3) if is_colour else noise(seed, SIZE, SIZE)
    once = resize(picture, RECIPE)
    np.testing.assert_array_equal(once, picture if is_colour else np.stack([picture] * 3, axis=2))
    np.testing.assert_array_equal(resize(once, RECIPE), once)


@given(sides, sides, st.tuples(*[st.integers(0, 255)] * 3))
def test_a_constant_picture_stays_constant(rows: int, columns: int, colour: tuple[int, int, int]) -> None:
    picture = np.full((rows, columns, 3), colour, np.uint8)
    assert (resize(picture, RECIPE) == np.asarray(colour, np.uint8)).all()


def test_detail_too_fine_to_show_becomes_grey() -> None:
    y, x = np.mgrid[0 : SIZE * 8, 0 : SIZE * 8]
    checkerboard = ((x + y) % 2 * 255).astype(np.uint8)
    small = resize(checkerboard, RECIPE).astype(int)
    assert np.abs(small[2:-2, 2:-2] - 127.5).max() <= 2, "aliasing: the filter does not widen with the reduction"


@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (5000, 1), (1, 1, 3), (3, 3), (3, 3, 3), (2, 70_000)])
def test_extreme_shapes_resize(shape: tuple[int, ...]) -> None:
    assert resize(noise(1, *shape), RECIPE).shape == (SIZE, SIZE, 3)


def test_the_whole_frame_is_stretched() -> None:
    wide = np.zeros((100, 400), np.uint8)
    wide[:, :8] = 255  # the outermost 2 %, which a centre crop would lose
    small = resize(wide, RECIPE)
    assert (small[:, 0] > 200).all(), "the left edge is gone"
    assert (small[:, 8:] == 0).all()


def test_pixels_that_are_a_view_resize_like_their_copy() -> None:
    film = noise(2, 90, 130)
    np.testing.assert_array_equal(resize(film[::-2, ::3], RECIPE), resize(film[::-2, ::3].copy(), RECIPE))


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((0, 5), np.uint8),
        np.zeros((5, 0, 3), np.uint8),
        np.zeros(5, np.uint8),
        np.zeros((5, 5, 4), np.uint8),
        np.zeros((5, 5, 1), np.uint8),
        np.zeros((2, 5, 5, 3), np.uint8),
        np.zeros((5, 5), np.uint16),
        np.zeros((5, 5), np.float64),
    ],
    ids=lambda pixels: f"{pixels.dtype}{pixels.shape}",
)
def test_other_arrays_are_refused(pixels: NDArray[np.uint8]) -> None:
    with pytest.raises(InvalidInput, match="Expected uint8 pixels"):
        resize(pixels, RECIPE)


@given(seeds, st.integers(0, 4))
def test_normalising_is_the_formula(seed: int, count: int) -> None:
    frames = noise(seed, count, SIZE, SIZE, 3)
    batch = normalise(frames, RECIPE)
    assert batch.shape == (count, 3, SIZE, SIZE)
    assert batch.dtype == np.float32
    assert batch.flags.c_contiguous
    expected = (frames.astype(np.float64) / 255 - np.asarray(RECIPE.mean)) / np.asarray(RECIPE.std)
    np.testing.assert_allclose(batch, expected.transpose(0, 3, 1, 2), atol=2e-6)


def test_channels_keep_their_order() -> None:
    red = np.zeros((1, SIZE, SIZE, 3), np.uint8)
    red[..., 0] = 255
    batch = normalise(red, RECIPE)
    assert batch[0, 0].min() > 2
    assert batch[0, 1:].max() < -1.7


@pytest.mark.parametrize("shape", [(SIZE, SIZE, 3), (1, SIZE, SIZE), (1, 3, SIZE, SIZE), (1, SIZE, SIZE + 1, 3)])
def test_frames_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidInput, match="Expected uint8 frames"):
        normalise(np.zeros(shape, np.uint8), RECIPE)


def test_float_frames_are_refused() -> None:
    with pytest.raises(InvalidInput, match="float64"):
        normalise(np.zeros((1, SIZE, SIZE, 3)), RECIPE)  # type: ignore[arg-type]


IMAGENET: Any = {"size_px": 480, "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
SHAPES = [(480, 480), (512, 512), (300, 700), (1201, 333), (31, 17), (600, 400, 3), (512, 512, 3)]


@pytest.mark.parametrize("shape", SHAPES)
def test_native480_is_the_published_transform_to_the_last_bit(shape: tuple[int, ...]) -> None:
    film = noise(5, *shape)
    expected = PillowImage.fromarray(film).convert("RGB").resize((480, 480), PillowImage.Resampling.BICUBIC)
    np.testing.assert_array_equal(resize(film, Recipe(*NATIVE480, **IMAGENET)), np.asarray(expected))


@pytest.mark.parametrize("shape", SHAPES)
def test_azure512q75_is_what_the_endpoint_does_to_the_last_bit(shape: tuple[int, ...]) -> None:
    """Each step as the wrapper's code writes it: resize with Pillow's default filter, JPEG, and back."""
    film = noise(6, *shape)
    buffered = io.BytesIO()
    PillowImage.fromarray(film).resize((512, 512)).convert("RGB").save(buffered, format="JPEG", quality=75)
    standard = PillowImage.open(io.BytesIO(buffered.getvalue())).convert("RGB")
    expected = np.asarray(standard.resize((480, 480), PillowImage.Resampling.BICUBIC))
    found = resize(film, Recipe(*AZURE512Q75, **IMAGENET))
    np.testing.assert_array_equal(found, expected)
    assert (found != resize(film, Recipe(*NATIVE480, **IMAGENET))).any()


@pytest.mark.parametrize("kind", [NATIVE480, AZURE512Q75])
def test_recipes_of_a_published_encoder_take_the_whole_frame(kind: tuple[str, int]) -> None:
    recipe = Recipe(*kind, **IMAGENET)
    assert recipe.needed_px is None
    with pytest.raises(InvalidInput, match="whole frame"):
        resize(np.zeros((9, 9), np.float32), recipe)
    with pytest.raises(InvalidInput, match="whole frame"):
        resize(np.zeros((9, 9), np.uint8), recipe, (0.0, 0.0, 8.5, 8.5))


def test_stretch_may_take_averages() -> None:
    assert RECIPE.needed_px == SIZE
