"""A series in one file: packed the same whatever the order, read back to the same values, and hostile zips refused."""

from __future__ import annotations

import io
import random
import zipfile
from pathlib import Path

import numpy as np
import pytest
from dicom_files import dicom_file
from nifti_files import nifti_file
from numpy.typing import NDArray
from series_files import written
from volumes import body, ct_series

from nearcase.errors import InvalidInput, NearcaseError
from nearcase.intake.archive import Archive, is_archive, pack_series
from nearcase.intake.burned_in import KEEP_TEXT, TextPolicy
from nearcase.intake.planes import Planes
from nearcase.intake.series_file import read_series
from nearcase.intake.series_reader import SeriesReader, open_sandbox


def all_of(planes: Planes) -> NDArray[np.float32]:
    return np.stack([planes.plane(number) for number in range(planes.shape[0])])


def zipped(files: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()


def refusal(data: bytes, policy: TextPolicy = KEEP_TEXT) -> NearcaseError:
    with pytest.raises(NearcaseError) as caught:
        read_series(data, policy)
    return caught.value


def test_the_same_files_in_any_order_are_the_same_bytes() -> None:
    files = ct_series(body(0), "P0")
    packed = pack_series(files)
    shuffled = random.Random(0).sample(files, len(files))
    assert pack_series(shuffled) == packed
    assert pack_series([*shuffled, files[3]]) == packed
    assert is_archive(packed)
    archive = Archive(packed)
    assert sorted(archive.read(number) for number in range(len(archive))) == sorted(files)


def test_values_and_geometry_are_those_of_the_reader_of_folders(tmp_path: Path) -> None:
    """The reader of folders, tested against pydicom and nibabel elsewhere, is the oracle."""
    files = ct_series(body(1), "P1", RescaleSlope=2, RescaleIntercept=-500)
    planes = read_series(pack_series(files), KEEP_TEXT)
    with open_sandbox() as sandbox:
        reader = SeriesReader(sandbox)
        volume = reader.volume(reader.scan(written(tmp_path, files)).scans)
    np.testing.assert_array_equal(all_of(planes), volume.voxels)
    np.testing.assert_array_equal(planes.direction, volume.direction)
    assert planes.unit == volume.unit == "HU"
    assert planes.facts.series_uid == volume.facts.series_uid
    assert planes.facts.instance_uid == ""


def test_zips_of_others_are_read_too() -> None:
    files = ct_series(body(2), "P2")
    named = {f"../../{number}/IM.dcm": data for number, data in enumerate(files)}
    others = {"DICOMDIR": b"no image", "readme.txt": b"words", "folder/": b""}
    planes = read_series(zipped(named | others, zipfile.ZIP_DEFLATED), KEEP_TEXT)
    np.testing.assert_array_equal(all_of(planes), body(2).astype(np.float32))
    assert planes.findings == ("volume of 24 slices", "2 files left out (NOT_DICOM)")


def test_nifti_is_a_series_by_itself() -> None:
    voxels = body(3)
    affine = np.diag((-0.8, -0.8, 2.5, 1.0))
    planes = read_series(nifti_file(voxels.transpose(2, 1, 0), affine=affine, zipped=True), KEEP_TEXT)
    np.testing.assert_array_equal(all_of(planes), voxels.astype(np.float32))
    assert planes.unit == ""


def test_nifti_without_finite_values_says_so() -> None:
    voxels = body(3).astype(np.float32)
    voxels[0, 0, :5] = np.nan
    voxels[3, 4, 5] = np.inf
    planes = read_series(nifti_file(voxels.transpose(2, 1, 0)), KEEP_TEXT)
    assert planes.findings[-1] == "6 voxels without a finite value take the smallest one"
    assert np.isfinite(all_of(planes)).all()
    assert all_of(planes).min() == -1024


def test_frames_of_one_object_are_a_series(pydicom_data: Path) -> None:
    planes = read_series((pydicom_data / "eCT_Supplemental.dcm").read_bytes(), KEEP_TEXT)
    assert planes.shape[0] == 2
    assert planes.facts.modality == "CT"
    assert all_of(planes).shape == planes.shape


@pytest.mark.parametrize("noun", ["series", "patient"])
def test_two_in_one_file_are_refused(noun: str) -> None:
    same = {"SeriesInstanceUID": "1.2.9"} if noun == "patient" else {"PatientID": "P"}
    mixed = [*ct_series(body(0), "P0", **same), *ct_series(body(1), "P1", **same)]
    error = refusal(pack_series(mixed))
    assert str(error) == f"expected the files of one {noun}, got those of 2"


def test_burned_in_text_follows_the_policy() -> None:
    strict = TextPolicy(refuses=True, takes_plain=False)
    files = ct_series(body(0), "P0")
    assert read_series(pack_series(files), strict).shape[0] == 24
    marked = [*files[:-1], *ct_series(body(0), "P0", BurnedInAnnotation="YES")[-1:]]
    assert refusal(pack_series(marked), strict).reason == "BURNED_IN"
    assert refusal(nifti_file(body(0)), strict).reason == "BURNED_IN"


@pytest.mark.parametrize("cut", [10, 200, 5_000, -30])
def test_a_cut_zip_is_refused(cut: int) -> None:
    packed = pack_series(ct_series(body(0), "P0"))
    assert refusal(packed[:cut]).reason in ("DAMAGED_ARCHIVE", "UNKNOWN_FORMAT")


def test_a_flipped_byte_is_refused() -> None:
    packed = bytearray(pack_series(ct_series(body(0), "P0")))
    packed[len(packed) // 2] ^= 0xFF
    assert refusal(bytes(packed)).reason == "DAMAGED_ARCHIVE"


def test_a_bomb_is_refused_without_filling_memory() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nearcase.intake.archive.MAX_FILE_BYTES", 1 << 16)
        error = refusal(zipped({"a": bytes(1 << 20)}, zipfile.ZIP_DEFLATED))
    assert error.reason == "IMAGE_TOO_LARGE"


def test_what_is_no_volume_is_refused() -> None:
    picture = dicom_file(np.zeros((4, 4), np.uint8))
    assert isinstance(refusal(picture), InvalidInput)
    assert refusal(b"\x89PNG\r\n\x1a\n").reason == "UNKNOWN_FORMAT"
    assert refusal(zipped({"a.txt": b"words"})).reason == "NOT_DICOM"
    assert refusal(zipped({"a.txt": b"words", "b.txt": b"more"})).reason == "NO_PIXELS"
    assert "two or more positions" in str(refusal(pack_series(ct_series(body(0), "P0")[:1])))
