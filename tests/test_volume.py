"""Voxels are measured values at their places in the patient; what can not be a volume says why."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from dicom_files import CANARY, dicom_file
from nifti_files import nifti_file
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import EnhancedCTImageStorage
from series_files import anatomy, ct_slice, written

from nearcase.errors import InvalidInput
from nearcase.intake.series_reader import SeriesReader, open_sandbox
from nearcase.intake.suv import NoSuv, Suv
from nearcase.intake.volume import Volume


@pytest.fixture(scope="module")
def reader() -> Iterator[SeriesReader]:
    with open_sandbox() as sandbox:
        yield SeriesReader(sandbox)


def volume_of(reader: SeriesReader, folder: Path, files: Sequence[bytes]) -> Volume:
    found = reader.scan(written(folder, files))
    assert not found.refused
    return reader.volume(found.scans)


def test_voxels_are_hounsfield_units_at_their_places(reader: SeriesReader, tmp_path: Path) -> None:
    volume = volume_of(reader, tmp_path, [ct_slice(z) for z in (2, 0, 3, 1)])
    np.testing.assert_array_equal(volume.voxels, np.stack([2.0 * anatomy(z) - 1000 for z in range(4)]))
    assert volume.voxels.dtype == np.float32
    assert volume.spacing_mm == (2.0, 0.5, 0.25)
    assert volume.origin_mm == (-10.0, -20.0, 0.0)
    assert volume.unit == "HU"
    assert volume.facts.modality == "CT"
    assert volume.findings == ()


def test_stack_written_from_the_other_side_is_the_same_anatomy(reader: SeriesReader, tmp_path: Path) -> None:
    plain = volume_of(reader, tmp_path, [ct_slice(z) for z in range(3)])
    turned = [
        ct_slice(
            z,
            anatomy(z)[:, ::-1].copy(),
            ImageOrientationPatient=[-1, 0, 0, 0, 1, 0],
            ImagePositionPatient=[-10 + 4 * 0.25, -20, 2 * z],
        )
        for z in range(3)
    ]
    other = volume_of(reader, tmp_path, turned)
    assert by_place(other) == by_place(plain)
    np.testing.assert_array_equal(other.voxels, plain.voxels[::-1, :, ::-1])


def by_place(volume: Volume) -> dict[tuple[float, ...], float]:
    """The value at each place of the patient, to a thousandth of a millimetre."""
    places = {}
    for index in np.ndindex(volume.voxels.shape):
        place = np.array(volume.origin_mm) + volume.direction @ (np.array(index) * volume.spacing_mm)
        places[tuple(np.round(place, 3) + 0.0)] = float(volume.voxels[index])
    return places


def test_monochrome1_is_measured_and_not_inverted(reader: SeriesReader, tmp_path: Path) -> None:
    volume = volume_of(reader, tmp_path, [ct_slice(z, PhotometricInterpretation="MONOCHROME1") for z in range(2)])
    np.testing.assert_array_equal(volume.voxels[1], 2.0 * anatomy(1) - 1000)


def test_padding_takes_the_smallest_value_and_is_counted(reader: SeriesReader, tmp_path: Path) -> None:
    pixels = anatomy(1)
    pixels[0, :2] = -2000
    volume = volume_of(reader, tmp_path, [ct_slice(z, pixels, PixelPaddingValue=-2000) for z in range(2)])
    assert volume.voxels.min() == 2.0 * anatomy(1)[0, 2] - 1000
    assert volume.findings == ("4 voxels of padding take the smallest value",)


def enhanced(positions: Sequence[float], slopes: Sequence[float]) -> bytes:
    """An enhanced CT whose frames lie and scale by their functional groups."""
    shared, groups = Dataset(), []
    shared.PixelMeasuresSequence = DicomSequence([item(PixelSpacing=[0.5, 0.25])])
    shared.PlaneOrientationSequence = DicomSequence([item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])])
    for z, slope in zip(positions, slopes, strict=True):
        group = Dataset()
        group.PlanePositionSequence = DicomSequence([item(ImagePositionPatient=[-10, -20, z])])
        group.PixelValueTransformationSequence = DicomSequence(
            [item(RescaleSlope=slope, RescaleIntercept=-1000, RescaleType="HU")]
        )
        groups.append(group)
    return dicom_file(
        np.stack([anatomy(z) for z in range(len(positions))]),
        SOPClassUID=EnhancedCTImageStorage,
        SeriesInstanceUID="1.2.3",
        SharedFunctionalGroupsSequence=DicomSequence([shared]),
        PerFrameFunctionalGroupsSequence=DicomSequence(groups),
    )


def item(**attributes: Any) -> Dataset:
    dataset = Dataset()
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


def test_enhanced_object_is_a_volume_by_its_functional_groups(reader: SeriesReader, tmp_path: Path) -> None:
    volume = volume_of(reader, tmp_path, [enhanced([6.0, 0.0, 3.0], [1.0, 2.0, 3.0])])
    expected = [2.0 * anatomy(1) - 1000, 3.0 * anatomy(2) - 1000, 1.0 * anatomy(0) - 1000]
    np.testing.assert_array_equal(volume.voxels, expected)
    assert (volume.spacing_mm, volume.unit) == ((3.0, 0.5, 0.25), "HU")


def test_frames_without_functional_groups_are_no_volume(reader: SeriesReader, tmp_path: Path) -> None:
    found = reader.scan(written(tmp_path, [dicom_file(np.zeros((3, 4, 4), np.uint16), PixelSpacing=[1, 1])]))
    with pytest.raises(InvalidInput, match="3 images without position"):
        reader.volume(found.scans)


def test_files_that_are_no_grey_images_are_counted_by_reason(reader: SeriesReader, tmp_path: Path) -> None:
    files = [
        ct_slice(0),
        ct_slice(1),
        b"hello",
        dicom_file(np.zeros((4, 4, 3), np.uint8)),
        ct_slice(2)[:200],
        nifti_file(np.zeros((2, 2, 2), np.int16)),
    ]
    found = reader.scan(written(tmp_path, files))
    assert len(found.scans) == 2
    assert sum(found.refused.values()) == 4
    assert CANARY not in str(found.refused)
    assert reader.volume(found.scans).voxels.shape == (2, 4, 5)


PET: dict[str, Any] = {
    "Modality": "PT",
    "Units": "BQML",
    "CorrectedImage": ["DECY", "ATTN"],
    "DecayCorrection": "ADMIN",
    "PatientWeight": 70,
}


def pet_slice(z: int, dose_bq: float = 350e6) -> bytes:
    drug = DicomSequence([item(RadionuclideTotalDose=dose_bq)])
    return ct_slice(z, RescaleIntercept=0, RadiopharmaceuticalInformationSequence=drug, **PET)


def test_suv_of_a_pet_series_is_known_only_where_its_slices_agree(reader: SeriesReader, tmp_path: Path) -> None:
    volume = volume_of(reader, tmp_path, [pet_slice(z) for z in range(3)])
    assert volume.suv == Suv(70e3 / 350e6, "Bq/ml, dose, weight and decay")
    assert volume.unit == "BQML"
    assert isinstance(volume_of(reader, tmp_path, [pet_slice(0), pet_slice(1, 300e6)]).suv, NoSuv)
    assert volume_of(reader, tmp_path, [ct_slice(z) for z in range(3)]).suv is None


# Real series: what comes with pydicom and nibabel. Truths are their headers, read by pydicom alone.

REAL: dict[str, tuple[str, Callable[[Volume], bool]]] = {
    "98892001/CT5N": ("", lambda volume: volume.spacing_mm == (2.5, 0.488281, 0.488281)),
    "77654033/CT2": ("gap of 202.50 mm after slice 1: 161 slices missing", lambda volume: volume.spacing_mm[0] == 1.25),
}


@pytest.mark.parametrize("name", REAL)
def test_real_series_has_the_spacing_of_its_positions(reader: SeriesReader, pydicom_files: Path, name: str) -> None:
    paths = sorted((pydicom_files / "dicomdirtests" / name).iterdir())
    volume = reader.volume(reader.scan(paths).scans)
    datasets = sorted((pydicom.dcmread(path) for path in paths), key=lambda each: float(each.ImagePositionPatient[2]))
    heights = [float(each.ImagePositionPatient[2]) for each in datasets]
    np.testing.assert_allclose(volume.offsets_mm, np.array(heights) - heights[0], atol=1e-6)
    expected = [each.pixel_array * float(each.RescaleSlope) + float(each.RescaleIntercept) for each in datasets]
    np.testing.assert_array_equal(volume.voxels, np.stack(expected).astype(np.float32))
    finding, is_right = REAL[name]
    assert volume.findings == ((finding,) if finding else ())
    assert is_right(volume)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("98892001/CT2N", "2 localisers left out"),
        ("98892003/MR700", "6 images of another orientation left out"),  # projections round an axis
    ],
)
def test_real_series_that_is_no_volume_says_why(
    reader: SeriesReader, pydicom_files: Path, name: str, words: str
) -> None:
    found = reader.scan(sorted((pydicom_files / "dicomdirtests" / name).iterdir()))
    with pytest.raises(InvalidInput, match=words):
        reader.volume(found.scans)


def test_real_enhanced_ct_is_a_volume(reader: SeriesReader, pydicom_data: Path) -> None:
    path = pydicom_data / "eCT_Supplemental.dcm"
    dataset = pydicom.dcmread(path)
    volume = reader.volume(reader.scan([path]).scans)
    assert volume.spacing_mm == (10.0, 0.388672, 0.388672)
    shared = dataset.SharedFunctionalGroupsSequence[0]
    line = shared.PixelValueTransformationSequence[0]
    expected = dataset.pixel_array * float(line.RescaleSlope) + float(line.RescaleIntercept)
    np.testing.assert_array_equal(volume.voxels, expected[::-1].astype(np.float32))  # its normal points to the feet


def test_real_mosaics_are_refused(reader: SeriesReader) -> None:
    nibabel = pytest.importorskip("nibabel", reason="nibabel, which brings the Siemens mosaics, is not installed")
    folder = Path(nibabel.__file__).parent / "nicom" / "tests" / "data"
    found = reader.scan([folder / "0.dcm", folder / "1.dcm"])
    with pytest.raises(InvalidInput, match="2 mosaics of many slices in one image left out"):
        reader.volume(found.scans)
