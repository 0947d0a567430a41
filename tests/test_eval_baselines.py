"""Grey pixels and oriented gradients as encoders: the encoder's laws, and HOG against scikit-image's."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from tiny_encoders import picture_recipe

from nearcase.encode.preprocess import normalise, resize
from nearcase.errors import NotFound
from nearcase_eval.baselines import BASELINES, PixelEncoder, baseline, grey, hog

Floats = NDArray[np.float32]


@pytest.fixture(params=BASELINES)
def encoder(request: pytest.FixtureRequest) -> PixelEncoder:
    return baseline(request.param)


def batch_of(encoder: PixelEncoder, count: int = 5, seed: int = 0) -> Floats:
    frames = np.random.default_rng(seed).integers(0, 256, (count, 60, 50, 3), dtype=np.uint8)
    recipe = picture_recipe(encoder.card)
    return normalise(np.stack([resize(frame, recipe) for frame in frames]), recipe)


def test_vectors_are_unit_and_as_long_as_the_card_says(encoder: PixelEncoder) -> None:
    vectors = encoder.embed(batch_of(encoder))
    assert vectors.shape == (5, encoder.card.dimension)
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors.astype(np.float64), axis=1), 1.0, atol=1e-5)


def test_an_image_embeds_the_same_alone_and_in_a_batch(encoder: PixelEncoder) -> None:
    batch = batch_of(encoder)
    together = encoder.embed(batch)
    alone = np.concatenate([encoder.embed(batch[row : row + 1]) for row in range(len(batch))])
    assert np.allclose(np.sum(together * alone, axis=1), 1.0, atol=1e-5)


@pytest.mark.parametrize("value", [0, 128, 255])
def test_a_flat_image_has_a_unit_vector(encoder: PixelEncoder, value: int) -> None:
    recipe = picture_recipe(encoder.card)
    flat = normalise(np.full((1, recipe.size_px, recipe.size_px, 3), value, np.uint8), recipe)
    assert np.linalg.norm(encoder.embed(flat)) == pytest.approx(1.0, abs=1e-5)


def test_brightness_changes_nothing(encoder: PixelEncoder) -> None:
    batch = batch_of(encoder) * 0.5
    assert np.allclose(encoder.embed(batch), encoder.embed(batch + 0.25), atol=1e-4)


def test_every_baseline_says_that_it_is_none(encoder: PixelEncoder) -> None:
    assert "not medical" in encoder.card.statement
    assert not encoder.card.is_medical
    assert not encoder.card.onnx_path.is_file()


def test_baselines_have_different_identities() -> None:
    assert len({baseline(name).card.identity for name in BASELINES}) == len(BASELINES)


def test_an_unknown_baseline_is_refused() -> None:
    with pytest.raises(NotFound, match="grey, hog"):
        baseline("colour")


def test_hog_agrees_with_scikit_image_on_smooth_pictures() -> None:
    """scikit-image puts a gradient in one bin and starts them elsewhere: alike, not equal."""
    features = pytest.importorskip("skimage.feature", reason="scikit-image is the reference: pip install scikit-image")
    waves = np.random.default_rng(0).normal(size=(6, 16, 16))
    pictures = np.kron(waves, np.ones((1, 8, 8))).astype(np.float32)
    for axis in (1, 2):  # smooth, so that few gradients lie at the edge of a bin
        pictures = np.stack([np.roll(pictures, shift, axis) for shift in range(-6, 7)]).mean(axis=0)
    ours = hog(pictures)
    theirs = np.stack([features.hog(p, 9, (8, 8), (2, 2), "L2-Hys", feature_vector=True) for p in pictures])
    assert ours.shape == theirs.shape
    similar = np.corrcoef(np.concatenate([ours, theirs]))[:6, 6:]
    assert np.diag(similar).min() > 0.9
    assert (np.diag(similar) > similar.max(axis=1, where=~np.eye(6, dtype=bool), initial=-1.0) + 0.3).all()


@pytest.mark.parametrize("degrees", [10.0, 30.0, 50.0, 110.0, 170.0])
def test_hog_puts_a_ramp_in_the_bin_of_its_direction(degrees: float) -> None:
    """Bin centres are at 10, 30, ... 170 degrees."""
    rows, columns = np.mgrid[:128, :128].astype(np.float32) / 256
    angle = np.deg2rad(degrees)
    ramp = (np.cos(angle) * columns + np.sin(angle) * rows).astype(np.float32)[None]
    inner = hog(ramp).reshape(15, 15, 4, 9)[5, 5]
    assert (inner.argmax(axis=-1) == int(degrees // 20)).all()
    assert (inner.max(axis=-1) > 20 * np.sort(inner, axis=-1)[:, -2]).all()


def test_hog_is_the_same_for_the_negative() -> None:
    picture = np.random.default_rng(1).random((1, 128, 128)).astype(np.float32)
    assert np.allclose(hog(picture), hog(1.0 - picture), atol=1e-4)


def test_grey_is_centred() -> None:
    found = grey(np.random.default_rng(2).random((3, 32, 32)).astype(np.float32))
    assert np.allclose(found.sum(axis=1), 0.0, atol=1e-3)
