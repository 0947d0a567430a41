"""Which frame, and where its bytes are: native, packed bits, encapsulated with and without offset tables."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from dicom_files import dicom_file
from hypothesis import given
from hypothesis import strategies as st
from imagecodecs import jpegls_encode
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate_extended
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian, JPEGLSLossless

from nearcase.errors import InvalidInput
from nearcase.intake.dicom import read_dicom
from nearcase.intake.frames import choose_frame


@pytest.mark.parametrize(("count", "middle"), [(1, 1), (2, 2), (3, 2), (10, 6), (120, 61)])
def test_the_middle_frame_is_read_unless_one_is_asked_for(count: int, middle: int) -> None:
    assert choose_frame(None, count) == middle
    assert choose_frame(1, count) == 1
    assert choose_frame(count, count) == count


@pytest.mark.parametrize("number", [-1, 0, 4, 10**9])
def test_a_frame_that_is_not_there_is_refused(number: int) -> None:
    with pytest.raises(InvalidInput, match="expected a frame from 1 to 3"):
        read_dicom(stack(), frame_number=number)


def numbered(count: int) -> NDArray[np.uint8]:
    """Frames that differ from each other, 5 x 7, with a full range each."""
    frames = np.tile(np.linspace(0, 255, 35).reshape(5, 7), (count, 1, 1)).astype(np.uint8)
    frames[:, 2, 2] = np.arange(count) * 20
    return frames


def stack(count: int = 3, **options: Any) -> bytes:
    return dicom_file(numbered(count), **options)


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"syntax": ImplicitVRLittleEndian},
        {"syntax": ExplicitVRBigEndian},
        {"syntax": DeflatedExplicitVRLittleEndian},
        {"syntax": JPEGLSLossless, "compressed": True},
        {"syntax": JPEGLSLossless, "compressed": True, "offsets": False},
    ],
    ids=str,
)
def test_each_frame_is_found(options: dict[str, Any], number: int) -> None:
    if "compressed" in options:
        options = options | {"compressed": [bytes(jpegls_encode(frame)) for frame in numbered(3)]}
    image = read_dicom(stack(**options), frame_number=number)
    np.testing.assert_array_equal(image.pixels, numbered(3)[number - 1])
    assert (image.frame_number, image.frame_count) == (number, 3)


@pytest.mark.parametrize("number", [1, 3])
def test_frames_are_found_by_the_extended_offset_table(number: int) -> None:
    frames = [bytes(jpegls_encode(frame)) for frame in numbered(3)]
    data, offsets, lengths = encapsulate_extended(frames)
    file = stack(syntax=JPEGLSLossless, compressed=frames, offsets=False, PixelData=data,
                 ExtendedOffsetTable=offsets, ExtendedOffsetTableLengths=lengths)  # fmt: skip
    np.testing.assert_array_equal(read_dicom(file, frame_number=number).pixels, numbered(3)[number - 1])


@given(st.integers(1, 5), st.integers(1, 9), st.integers(1, 9), st.data())
def test_packed_bits_may_begin_inside_a_byte(count: int, rows: int, columns: int, data: st.DataObject) -> None:
    number = data.draw(st.integers(1, count))
    bits = np.random.default_rng(count * 81 + rows * 9 + columns).integers(0, 2, (count, rows, columns))
    packed = np.packbits(bits.ravel(), bitorder="little").tobytes()
    file = dicom_file(
        np.zeros((count, rows, columns, 1), np.uint8)[..., 0] if columns != 3 else np.zeros((count, rows, 4), np.uint8),
        Columns=columns, BitsAllocated=1, BitsStored=1, HighBit=0, PixelData=packed + b"\0" * (len(packed) % 2),
        SamplesPerPixel=1, PhotometricInterpretation="MONOCHROME2", NumberOfFrames=count, Rows=rows,
        WindowCenter=1, WindowWidth=1,
    )  # fmt: skip
    np.testing.assert_array_equal(read_dicom(file, frame_number=number).pixels, bits[number - 1] * 255)


def test_pixels_that_end_early_are_refused_and_padding_is_not() -> None:
    whole = numbered(2).tobytes()
    with pytest.raises(InvalidInput, match="expected 70 bytes of pixel data, got 68"):
        read_dicom(stack(2, PixelData=whole[:68]), frame_number=1)
    assert read_dicom(stack(2, PixelData=whole + bytes(50))).frame_number == 2


def test_an_empty_number_of_frames_is_one() -> None:
    assert read_dicom(dicom_file(NumberOfFrames="")).frame_count == 1
    assert Dataset().get("NumberOfFrames") is None
