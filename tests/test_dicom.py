"""DICOM reading: equal to pydicom's own decoders on every sample file, and to scalar oracles on made files."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pydicom
import pytest
from dicom_files import dicom_file
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut, apply_voi_lut
from pydicom.pixels.utils import pixel_array
from pydicom.uid import (
    MPEG4HP41,
    UID,
    HTJ2KLossless,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from nearcase.errors import InvalidInput, NearcaseError, Unsupported
from nearcase.intake import dicom
from nearcase.intake.dicom import read_dicom
from nearcase.intake.header import read_header
from nearcase.intake.parse import parse
from nearcase.types import Image

PYDICOM_FILES = Path(pydicom.__file__).parent / "data" / "test_files"
PYDICOM_DATA = importlib.util.find_spec("data_store")  # the demo extra; without it these files are not compared
DATA_FOLDERS = PYDICOM_DATA.submodule_search_locations if PYDICOM_DATA else None
ROOTS = (PYDICOM_FILES, *(Path(folder) for folder in DATA_FOLDERS or ()))
NO_PIXELS = (InvalidInput, "NO_PIXELS")
NO_IMAGE = (Unsupported, "NOT_AN_IMAGE")
NO_DICOM = (InvalidInput, "NOT_DICOM")
REFUSED: dict[str, tuple[type[NearcaseError], str]] = {
    "badVR.dcm": (InvalidInput, "BAD_ATTRIBUTE"),  # Number of Frames is "1A"
    "empty_charset_LEI.dcm": NO_PIXELS,
    "emri_small_jpeg_2k_lossless_too_short.dcm": NO_PIXELS,  # cut off before its pixels
    "JPEG2000-embedded-sequence-delimiter.dcm": (InvalidInput, "HEADER_MISMATCH"),  # 3.7e9 columns in the codestream
    "meta_missing_tsyntax.dcm": (InvalidInput, "NO_TRANSFER_SYNTAX"),
    "MR_truncated.dcm": (InvalidInput, "TRUNCATED"),
    "nested_priv_SQ.dcm": (InvalidInput, "MISSING_ATTRIBUTE"),  # no Bits Allocated
    "no_meta_group_length.dcm": NO_PIXELS,
    "priv_SQ.dcm": NO_PIXELS,
    "UN_sequence.dcm": NO_PIXELS,
    "DICOMDIR-empty.dcm": NO_IMAGE,
    "reportsi.dcm": NO_IMAGE,
    "reportsi_with_empty_number_tags.dcm": NO_IMAGE,
    "rtplan.dcm": NO_IMAGE,
    "rtplan_truncated.dcm": NO_IMAGE,
    "test-SR.dcm": NO_IMAGE,
    "waveform_ecg.dcm": NO_IMAGE,
    "ExplVR_BigEndNoMeta.dcm": NO_DICOM,  # these five have neither preamble nor meta information
    "ExplVR_LitEndNoMeta.dcm": NO_DICOM,
    "no_meta.dcm": NO_DICOM,
    "OT-PAL-8-face.dcm": NO_DICOM,
    "rtstruct.dcm": NO_DICOM,
}
NO_REFERENCE = {"JPEG-lossy.dcm", "JPGExtended.dcm"}  # 12-bit JPEG: pydicom's permissive plug-ins refuse it


BIG_ENDIAN_PALETTES = {"OBXXXX1A_expb.dcm", "OBXXXX1A_expb_2frame.dcm"}
"""pydicom reads their palettes with swapped bytes; they hold the pictures of their little-endian twins."""


def is_sample(path: Path) -> bool:
    named = path.suffix in ("", ".dcm") and path.name not in ("README", "__init__.py")
    return path.is_file() and named


SAMPLES = [path for root in ROOTS for path in sorted(root.rglob("*")) if is_sample(path)]


@pytest.fixture(autouse=True)
def pydicom_may_warn() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def expected_refusal(path: Path) -> tuple[type[NearcaseError], str] | None:
    if "TINY_ALPHA" in path.parts and path.name.startswith("IM"):
        return NO_PIXELS
    return NO_IMAGE if path.name.startswith("DICOMDIR") else REFUSED.get(path.name)


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: "-".join(path.parts[-3:]))
def test_every_sample_is_read_as_pydicom_reads_it(path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data, refusal = path.read_bytes(), expected_refusal(path)
    if refusal is not None:
        with pytest.raises(refusal[0]) as caught:
            read_dicom(data)
        assert caught.value.reason == refusal[1]
    else:
        image = read_dicom(data)
        assert image.pixels.dtype == np.uint8
        if path.name not in NO_REFERENCE:
            agree(data, path, image)
    captured = capfd.readouterr()
    assert captured.err == captured.out == ""


def agree(data: bytes, path: Path, image: Image) -> None:
    reference = pydicom.dcmread(path)
    parsed = parse(data)
    stored = dicom._stored(parsed, read_header(parsed.dataset), image.frame_number)
    np.testing.assert_array_equal(stored.values, pixel_array(reference, index=image.frame_number - 1, raw=True))
    if path.name in BIG_ENDIAN_PALETTES:
        reference = pydicom.dcmread(path.with_name(path.name.replace("_expb", "")))
    expected = rendered_by_pydicom(flattened(reference), image.frame_number - 1)
    assert image.pixels.shape == expected.shape
    assert np.abs(image.pixels - expected).max() <= 1


def flattened(dataset: Dataset) -> Dataset:
    """pydicom's functions know no functional groups; the only enhanced sample shares them between frames."""
    for group in dataset.get("SharedFunctionalGroupsSequence", []):
        for keyword in ("FrameVOILUTSequence", "PixelValueTransformationSequence"):
            for item in group.get(keyword, []):
                dataset.update(item)
    return dataset


def rendered_by_pydicom(dataset: Dataset, index: int) -> NDArray[np.float64]:
    values = pixel_array(dataset, index=index)
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        values = apply_color_lut(values, dataset)
    if values.ndim == 3:
        bits = dataset.BitsStored if dataset.PhotometricInterpretation != "PALETTE COLOR" else 8 * values.dtype.itemsize
        return np.asarray(values / (2.0**bits - 1) * 255)
    grey = grey_by_pydicom(dataset, values)
    return 255 - grey if dataset.PhotometricInterpretation == "MONOCHROME1" else grey


def grey_by_pydicom(dataset: Dataset, stored: NDArray[Any]) -> NDArray[np.float64]:
    values = apply_modality_lut(stored, dataset)
    if "VOILUTSequence" in dataset:
        bits = dataset.VOILUTSequence[0].LUTDescriptor[2]
        return np.asarray(apply_voi_lut(values, dataset) / (2.0**bits - 1) * 255)
    if "WindowWidth" not in dataset:
        present = values[stored != dataset.get("PixelPaddingValue", np.inf)]
        return np.asarray((np.clip(values, present.min(), present.max()) - present.min()) / np.ptp(present) * 255)
    low, high = (0, 2**dataset.BitsStored - 1)
    if dataset.PixelRepresentation == 1:
        low, high = -(2 ** (dataset.BitsStored - 1)), 2 ** (dataset.BitsStored - 1) - 1
    slope, intercept = dataset.get("RescaleSlope", 1), dataset.get("RescaleIntercept", 0)
    low, high = low * slope + intercept, high * slope + intercept
    return np.asarray((apply_voi_lut(values, dataset) - low) / (high - low) * 255)


def test_12_bit_jpeg_holds_the_known_values() -> None:
    """Values that pydicom's own tests hold for this file, from a decoder that is not permissively licensed."""
    data = (PYDICOM_FILES / "JPGExtended.dcm").read_bytes()
    parsed = parse(data)
    values = dicom._stored(parsed, read_header(parsed.dataset), 1).values
    assert (values[420, 140], values[230, 120]) == (244, 95)


def made(dtype: str, bits: int, *, color: bool = False, seed: int = 5) -> NDArray[Any]:
    """Pixels with smooth parts, edges and both ends of the range."""
    generator = np.random.default_rng(seed)
    low, high = (-(1 << bits - 1), 1 << bits - 1) if dtype[0] == "i" else (0, 1 << bits)
    shape = (24, 20, 3) if color else (24, 20)
    pixels = generator.integers(low, high, shape)
    pixels[:12] = np.linspace(low, high - 1, 20).astype(np.int64).reshape((1, 20, 1) if color else (1, 20))
    return pixels.astype(dtype)


ENCODERS: dict[UID, Any] = {
    JPEG2000Lossless: lambda pixels, bits: imagecodecs.jpeg2k_encode(
        pixels, level=0, codecformat="j2k", bitspersample=bits, reversible=True
    ),
    HTJ2KLossless: lambda pixels, bits: imagecodecs.htj2k_encode(pixels, reversible=True),
    JPEGLSLossless: lambda pixels, bits: imagecodecs.jpegls_encode(pixels.view(f"u{pixels.dtype.itemsize}")),
    JPEGLosslessSV1: lambda pixels, bits: imagecodecs.jpeg8_encode(
        pixels.view(f"u{pixels.dtype.itemsize}"), lossless=True, bitspersample=bits, predictor=1
    ),
}


@pytest.mark.parametrize("syntax", ENCODERS, ids=lambda syntax: syntax.name)
@pytest.mark.parametrize(("dtype", "bits"), [("u1", 8), ("u2", 12), ("u2", 16), ("i2", 16)])
def test_lossless_codings_give_back_the_stored_values(syntax: UID, dtype: str, bits: int) -> None:
    pixels = made(dtype, bits)
    frames = [ENCODERS[syntax](frame, bits) for frame in (pixels, pixels[::-1].copy())]
    data = dicom_file(
        np.stack([pixels, pixels[::-1]]), syntax=syntax, compressed=frames, BitsStored=bits, HighBit=bits - 1
    )
    parsed = parse(data)
    for number, expected in ((1, pixels), (2, pixels[::-1])):
        stored = dicom._stored(parsed, read_header(parsed.dataset), number)
        np.testing.assert_array_equal(stored.values, expected)
        assert stored.values.dtype == expected.dtype


@pytest.mark.parametrize("syntax", [*ENCODERS, JPEGBaseline8Bit], ids=lambda syntax: syntax.name)
def test_compressed_frames_that_end_early_are_refused_and_never_filled_up(syntax: UID) -> None:
    pixels = made("u1", 8)
    encode = ENCODERS.get(syntax, lambda pixels, bits: imagecodecs.jpeg8_encode(pixels))
    frame = bytes(encode(pixels, 8))
    for end in range(40, len(frame) - 2, 11):
        with pytest.raises(InvalidInput):
            read_dicom(dicom_file(pixels, syntax=syntax, compressed=[frame[:end]]))


@pytest.mark.parametrize(("dtype", "samples"), [("u1", 1), ("u2", 1), ("i2", 1), ("u1", 3), ("u2", 3)])
def test_rle_gives_back_the_stored_values(dtype: str, samples: int) -> None:
    pixels = made(dtype, 8 * np.dtype(dtype).itemsize, color=samples == 3)
    dataset = pydicom.dcmread(BytesIO(dicom_file(pixels)))
    dataset.compress(RLELossless, encoding_plugin="pydicom")
    out = BytesIO()
    dataset.save_as(out)
    parsed = parse(out.getvalue())
    stored = dicom._stored(parsed, read_header(parsed.dataset), 1)
    np.testing.assert_array_equal(stored.values, pixels)


def test_an_image_says_how_its_file_was_coded() -> None:
    image = read_dicom(dicom_file())
    assert image.transfer_syntax_uid == "1.2.840.10008.1.2.1"
    assert image.media_type == "application/dicom"


def test_video_is_refused_by_its_name() -> None:
    with pytest.raises(Unsupported, match="MPEG-4"):
        read_dicom(dicom_file(syntax=MPEG4HP41, compressed=[b"0000"]))


def test_floating_point_images_are_refused_as_such() -> None:
    data = dicom_file(PixelData=None, FloatPixelData=np.zeros(16, "<f4").tobytes())
    with pytest.raises(Unsupported, match="floating point"):
        read_dicom(data)
