"""NIfTI is read as nibabel reads it, turned so that no voxel leaves its place in the patient, and within bounds."""

from __future__ import annotations

import gzip
import importlib.util
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nifti_files import CODES, nifti_file, rotation
from numpy.typing import NDArray

from nearcase.errors import InvalidInput, NearcaseError, Unsupported
from nearcase.intake.files import read_image
from nearcase.intake.nifti import describe_nifti, is_nifti, read_nifti, read_nifti_image
from nearcase.intake.volume import Volume

RAMP = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
TO_LPS = np.diag((-1.0, -1.0, 1.0, 1.0))


def samples() -> list[Path]:
    spec = importlib.util.find_spec("nibabel")
    if spec is None or not spec.submodule_search_locations:
        return []
    return sorted((Path(spec.submodule_search_locations[0]) / "tests" / "data").glob("*.nii*"))


def affine_of(volume: Volume) -> NDArray[np.float64]:
    """Voxel (slice, row, column) to LPS."""
    affine = np.eye(4)
    affine[:3, :3] = volume.direction * volume.spacing_mm
    affine[:3, 3] = volume.origin_mm
    return affine


@pytest.mark.skipif(not samples(), reason="nibabel, which brings the sample files, is not installed")
@pytest.mark.parametrize("path", samples(), ids=lambda path: path.name)
def test_every_voxel_of_nibabels_files_has_nibabels_value_at_nibabels_place(path: Path) -> None:
    import nibabel

    if path.name == "row_major.dconn.nii":
        with pytest.raises(Unsupported, match="vectors"):
            read_nifti(path.read_bytes())
        return
    theirs: Any = nibabel.load(path)
    values = np.asarray(theirs.dataobj, dtype=np.float32)
    values = values[..., 0] if values.ndim == 4 else values
    ours = read_nifti(path.read_bytes())
    assert ours.voxels.size == values.size
    to_theirs = np.linalg.inv(TO_LPS @ theirs.affine) @ affine_of(ours)
    index = np.indices(ours.voxels.shape).reshape(3, -1)
    places = to_theirs[:3, :3] @ index + to_theirs[:3, 3:]
    np.testing.assert_allclose(places, np.rint(places), atol=1e-3)
    at_places = values[tuple(np.rint(places).astype(int))]
    is_number = np.isfinite(at_places)
    np.testing.assert_array_equal(ours.voxels.ravel()[is_number], at_places[is_number])
    assert (ours.voxels.ravel()[~is_number] == at_places[is_number].min()).all()


@pytest.mark.skipif(not samples(), reason="nibabel is not installed")
@given(
    code=st.sampled_from(sorted(CODES)),
    order=st.sampled_from("<>"),
    slope=st.sampled_from([0.0, 1.0, 0.5, -2.0, float("nan")]),
    zipped=st.booleans(),
)
def test_types_orders_and_scales_are_read_as_nibabel_reads_them(
    code: str, order: str, slope: float, zipped: bool
) -> None:
    import nibabel

    data = nifti_file(RAMP.astype(code), order=order, slope=slope, intercept=7.0, zipped=zipped)
    theirs = nibabel.Nifti1Image.from_bytes(gzip.decompress(data) if zipped else data)
    expected = np.asarray(theirs.dataobj, dtype=np.float32).transpose(2, 1, 0)[:, ::-1, ::-1]
    np.testing.assert_array_equal(read_nifti(data).voxels, expected)


@st.composite
def orientations(draw: st.DrawFn) -> NDArray[np.float64]:
    """Any order and sign of axes, turned a little: less than what would change the nearest axis."""
    axes = draw(st.permutations(range(3)))
    signs = draw(st.tuples(*[st.sampled_from([-1.0, 1.0])] * 3))
    lengths = draw(st.tuples(*[st.floats(0.3, 9.0)] * 3))
    angles = draw(st.tuples(*[st.floats(-0.2, 0.2)] * 3))
    affine = np.eye(4)
    affine[:3, :3] = rotation(angles) @ np.eye(3)[:, axes] * signs * lengths
    affine[:3, 3] = draw(st.tuples(*[st.floats(-300, 300)] * 3))
    return affine


@given(orientations())
def test_axes_point_up_back_and_left_and_no_voxel_moves(affine: NDArray[np.float64]) -> None:
    volume = read_nifti(nifti_file(RAMP, affine=affine))
    assert volume.direction[2, 0] > 0.9  # slices go up
    assert volume.direction[1, 1] > 0.9  # rows go to the back
    assert volume.direction[0, 2] > 0.9  # columns go to the patient's left
    place = affine_of(volume)
    stored = TO_LPS @ affine.astype(np.float32)
    for index in np.ndindex(volume.voxels.shape):
        value = int(volume.voxels[index])
        ijk = np.unravel_index(value, RAMP.shape)  # RAMP counts its own voxels
        np.testing.assert_allclose(place @ (*index, 1), stored @ (*ijk, 1), atol=0.01)


def test_qform_is_read_where_there_is_no_sform() -> None:
    fields: dict[str, Any] = {
        "no_sform": (254, "h", 0),
        "qform": (252, "h", 1),
        "qfac": (76, "f", -1.0),
        "thick": (88, "f", 5.0),
        "quatern_b": (256, "f", 0.0),
        "quatern_d": (264, "f", 1.0),  # half a turn about z
        "offset_z": (276, "f", -50.0),
    }
    volume = read_nifti(nifti_file(RAMP, **fields))
    assert volume.spacing_mm == (5.0, 1.0, 1.0)
    assert "LPI" in volume.findings[0]
    assert "(qform)" in volume.findings[0]
    assert volume.origin_mm[2] == -50.0 - 3 * 5.0  # the lowest slice was stored last


def test_missing_orientation_is_said() -> None:
    volume = read_nifti(nifti_file(RAMP, no_sform=(254, "h", 0)))
    assert volume.findings[0] == "no orientation stated: left and right of the patient are not known"


@pytest.mark.parametrize(("units", "factor"), [(1, 1000.0), (2, 1.0), (3, 0.001), (2 | 8, 1.0)])
def test_lengths_are_in_millimetres_whatever_the_file_says(units: int, factor: float) -> None:
    volume = read_nifti(nifti_file(RAMP, units=units))
    np.testing.assert_allclose(volume.spacing_mm, (factor,) * 3)
    assert not any("unit" in finding for finding in volume.findings)
    assert "no unit of length stated, millimetres taken" in read_nifti(nifti_file(RAMP, units=0)).findings


def test_first_of_several_volumes_is_taken_and_said() -> None:
    series = np.stack([RAMP, RAMP + 100], axis=3)
    volume = read_nifti(nifti_file(series))
    assert volume.voxels.max() == 23
    assert "volume 1 of 2 taken" in volume.findings


def test_single_slice_is_a_volume_of_one() -> None:
    assert read_nifti(nifti_file(RAMP[:, :, 0])).voxels.shape == (1, 3, 2)


def test_oblique_and_sheared_blocks_are_said() -> None:
    tilted = np.eye(4)
    tilted[1, 2] = np.tan(np.radians(20))
    findings = read_nifti(nifti_file(RAMP, affine=tilted)).findings
    assert any("20 degrees off axial" in finding for finding in findings)
    assert any("sheared" in finding for finding in findings)


def test_values_that_are_no_numbers_are_dark_and_counted() -> None:
    values = RAMP.astype(np.float32)
    values[0, 0, 0], values[1, 1, 1] = np.nan, np.inf
    data = nifti_file(values)
    assert read_nifti(data).voxels.min() == 1.0
    assert "2 voxels without a finite value take the smallest one" in read_nifti(data).findings
    assert read_nifti(nifti_file(np.full((2, 2, 2), np.nan))).voxels.max() == 0.0
    assert read_nifti_image(nifti_file(np.full((2, 2, 2), 1e300))).pixels.max() == 0


# One slice as an image


def test_middle_slice_is_shown_with_the_front_up_and_the_left_on_the_right() -> None:
    image = read_image(nifti_file(RAMP, zipped=True))  # RAS: i to the right, j to the front, k up
    assert (image.frame_number, image.frame_count) == (3, 4)
    assert image.media_type == "application/x-nifti"
    expected = RAMP[::-1, ::-1, 2].T.astype(float)
    expected = np.rint(255 * (expected - expected.min()) / (expected.max() - expected.min()))
    np.testing.assert_array_equal(image.pixels, expected)
    assert image.rules[0] == "axial slice 3 of 4"
    assert "full range 2 to 22" in image.rules


def test_scale_display_range_and_window_decide_the_grey_values() -> None:
    fields: dict[str, Any] = {"cal_max": (124, "f", 20.0), "cal_min": (128, "f", 10.0)}
    data = nifti_file(RAMP, slope=2.0, intercept=-4.0, **fields)
    image = read_nifti_image(data, frame_number=1)
    expected = np.rint(255 * np.clip((RAMP[::-1, ::-1, 0].T * 2.0 - 4.0 - 10.0) / 10.0, 0, 1))
    np.testing.assert_array_equal(image.pixels, expected)
    assert {"scaled by slope 2 intercept -4", "display range 10 to 20"} <= set(image.rules)
    assert "window 40/80 LINEAR" in read_nifti_image(data, window="brain").rules


@pytest.mark.parametrize("frame", [0, 5])
def test_slice_that_is_not_there_is_refused(frame: int) -> None:
    with pytest.raises(InvalidInput, match="from 1 to 4"):
        read_image(nifti_file(RAMP), frame_number=frame)


# Hostile files


def with_field(place: int, code: str, *values: Any, data: bytes | None = None) -> bytes:
    changed = bytearray(data or nifti_file(RAMP))
    struct.pack_into("<" + code, changed, place, *values)
    return bytes(changed)


NOISE = np.random.default_rng(0).integers(0, 99, (9, 9, 9)).astype(np.int16)

REFUSED = {
    "cut_off": (nifti_file(RAMP)[:-1], "TRUNCATED"),
    "cut_off_in_gzip": (nifti_file(NOISE, zipped=True)[:-300], "TRUNCATED"),
    "gzip_check_sum": (nifti_file(NOISE, zipped=True)[:-8] + bytes(8), "DAMAGED_IMAGE"),
    "gzip_damaged": (nifti_file(NOISE, zipped=True)[:450] + b"\xff" * 900, "DAMAGED_IMAGE"),
    "too_many_voxels": (with_field(42, "3h", 32767, 32767, 32767), "IMAGE_TOO_LARGE"),
    "size_0": (with_field(44, "h", 0), "BAD_ATTRIBUTE"),
    "size_negative": (with_field(44, "h", -3), "BAD_ATTRIBUTE"),
    "no_dimension": (with_field(40, "h", 0), "BAD_ATTRIBUTE"),
    "unknown_type": (with_field(70, "h", 3), "BAD_ATTRIBUTE"),
    "colour": (with_field(70, "h", 128), "UNSUPPORTED"),
    "complex": (with_field(70, "h", 32), "UNSUPPORTED"),
    "vectors": (with_field(40, "8h", 5, 2, 3, 4, 1, 3, 1, 1), "UNSUPPORTED"),
    "voxels_in_the_header": (with_field(108, "f", 4.0), "BAD_ATTRIBUTE"),
    "voxels_nowhere": (with_field(108, "f", float("nan")), "BAD_ATTRIBUTE"),
    "voxels_past_the_end": (with_field(108, "f", 1e6), "TRUNCATED"),
    "no_finite_intercept": (with_field(112, "2f", 1.0, float("inf")), "BAD_ATTRIBUTE"),
    "no_finite_orientation": (with_field(280, "f", float("nan")), "BAD_ATTRIBUTE"),
    "flat_orientation": (with_field(280, "12f", *[0.0] * 12), "BAD_ATTRIBUTE"),
    "two_axes_alike": (with_field(280, "12f", 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0), "BAD_ATTRIBUTE"),
    "no_rotation": (with_field(252, "2h", 1, 0, data=with_field(256, "f", 2.0)), "BAD_ATTRIBUTE"),
    "header_of_a_pair": (with_field(344, "4s", b"ni1\0"), "UNSUPPORTED"),
    "other_gzip": (gzip.compress(b"hello" * 200), "UNKNOWN_FORMAT"),
    "header_alone": (nifti_file(RAMP)[:352], "TRUNCATED"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_hostile_file_ends_in_one_typed_error_of_one_line(name: str) -> None:
    data, reason = REFUSED[name]
    with pytest.raises(NearcaseError) as raised:
        read_image(data)
    assert raised.value.reason == reason
    assert "\n" not in str(raised.value)


@given(st.data())
def test_any_change_of_the_header_ends_in_a_volume_or_one_typed_error(data: st.DataObject) -> None:
    changed = bytearray(nifti_file(RAMP))
    for place in data.draw(st.lists(st.integers(0, 351), min_size=1, max_size=8)):
        changed[place] = data.draw(st.integers(0, 255))
    try:
        volume = read_nifti(bytes(changed))
    except NearcaseError as error:
        said = str(error)
    else:
        said = ""
        assert np.isfinite(volume.voxels).all()
        assert np.isfinite([*volume.spacing_mm, *volume.origin_mm]).all()
    assert "\n" not in said


def test_bomb_inflates_no_further_than_the_header_says() -> None:
    small = gzip.compress(nifti_file(RAMP) + bytes(200 << 20))
    assert len(small) < 1 << 20
    assert read_nifti(small).voxels.shape == (4, 3, 2)


def test_sniffing_reads_the_beginning_only() -> None:
    assert is_nifti(nifti_file(RAMP))
    assert is_nifti(nifti_file(RAMP, zipped=True))
    assert is_nifti(nifti_file(RAMP, order=">"))
    assert not is_nifti(b"")
    assert not is_nifti(b"\x1f\x8b")
    assert not is_nifti(gzip.compress(bytes(1000)))


def test_description_is_json_without_voxels() -> None:
    told = describe_nifti(nifti_file(RAMP))
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert (told["shape"], told["smallest"], told["largest"]) == ([4, 3, 2], 0.0, 23.0)
