"""The grey path against scalar oracles written from the standard's pseudo-code."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from dicom_files import dicom_file
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian

from nearcase.errors import InvalidInput
from nearcase.intake.dicom import read_dicom
from nearcase.intake.windows import Window, WindowFunction


def scalar_grey(stored: int, slope: float, intercept: float, window: Window) -> float:
    """PS3.3 C.11.1 and the pseudo-code of C.11.2.1.2.1, one value at a time."""
    value = stored * slope + intercept
    if value <= window.center - 0.5 - (window.width - 1) / 2:
        return 0.0
    if value > window.center - 0.5 + (window.width - 1) / 2:
        return 255.0
    return ((value - (window.center - 0.5)) / (window.width - 1) + 0.5) * 255.0


@given(
    values=st.lists(st.integers(-2048, 2047), min_size=1, max_size=8),
    bits=st.sampled_from((12, 13, 16)),
    shift=st.booleans(),
    slope=st.sampled_from((1.0, 0.5, 2.25, -1.0)),
    intercept=st.integers(-1024, 1024),
    center=st.integers(-1000, 1000),
    width=st.integers(1, 4000),
    is_inverted=st.booleans(),
)
def test_the_grey_path_is_the_standards_pseudo_code(
    values: list[int], bits: int, shift: bool, slope: float, intercept: int, center: int, width: int, is_inverted: bool
) -> None:
    """Signed values of fewer bits than allocated, at the bottom or the top of their word, with noise in the others."""
    high_bit = 15 if shift else bits - 1
    noise = 0b1010_0101_1100_0011
    words = [((value & (1 << bits) - 1) << high_bit - bits + 1) | (noise & ~(((1 << bits) - 1) << high_bit - bits + 1))
             for value in values]  # fmt: skip
    data = dicom_file(
        np.array([words], np.uint16),
        BitsStored=bits,
        HighBit=high_bit,
        PixelRepresentation=1,
        RescaleSlope=slope,
        RescaleIntercept=intercept,
        WindowCenter=[center, 7],
        WindowWidth=[width, 7],
        PhotometricInterpretation="MONOCHROME1" if is_inverted else "MONOCHROME2",
    )
    expected = [scalar_grey(value, slope, intercept, Window(center, width)) for value in values]
    expected = [255 - level for level in expected] if is_inverted else expected
    assert np.abs(read_dicom(data).pixels[0] - np.array(expected)).max() <= 0.5 + 1e-6


@given(st.lists(st.integers(0, 4095), min_size=2, max_size=9).filter(lambda values: len(set(values)) > 1))
def test_monochrome1_inverted_twice_is_itself(values: list[int]) -> None:
    stored = np.array([values], np.uint16)
    plain = read_dicom(dicom_file(stored, BitsStored=12, HighBit=11)).pixels
    negative = dicom_file(4095 - stored, BitsStored=12, HighBit=11, PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_allclose(read_dicom(negative).pixels, plain, atol=1)


def test_the_rules_say_what_was_done_in_order() -> None:
    stored = np.array([[0, 1000, 1024, 1064, 2000]], np.uint16)
    data = dicom_file(
        stored, RescaleSlope=1, RescaleIntercept=-1024, WindowCenter=40, WindowWidth=400,
        PhotometricInterpretation="MONOCHROME1", NumberOfFrames=1,
    )  # fmt: skip
    assert read_dicom(data).rules == (
        "rescale slope 1 intercept -1024", "window 40/400 LINEAR", "MONOCHROME1 inverted",
    )  # fmt: skip


@pytest.mark.parametrize(
    "window",
    [
        {},
        {"WindowCenter": 40, "WindowWidth": 0},
        {"WindowCenter": 40, "WindowWidth": -5},
        {"WindowCenter": 40, "WindowWidth": 0.5},
        {"WindowCenter": 40},
    ],
    ids=str,
)
@pytest.mark.parametrize(
    ("padding", "expected"),
    [
        ({}, [0, 85, 170, 255]),
        ({"PixelPaddingValue": -2000}, [0, 0, 128, 255]),
        ({"PixelPaddingValue": -2000, "PixelPaddingRangeLimit": -1000}, [0, 0, 0, 255]),
        ({"PixelPaddingValue": 1000}, [0, 128, 255, 255]),
        ({"PixelPaddingValue": 1000, "PixelPaddingRangeLimit": -2000}, [0, 0, 0, 0]),
    ],
    ids=str,
)
def test_without_a_window_the_full_range_without_padding(
    window: dict[str, Any], padding: dict[str, Any], expected: list[int]
) -> None:
    stored = np.array([[-2000, -1000, 0, 1000]], np.int16)
    pixels = read_dicom(dicom_file(stored, **window, **padding)).pixels[0]
    np.testing.assert_array_equal(pixels, expected)


def test_a_window_of_one_value_is_a_step() -> None:
    stored = np.array([[39, 40, 41]], np.uint16)
    pixels = read_dicom(dicom_file(stored, WindowCenter=40, WindowWidth=1)).pixels[0]
    np.testing.assert_array_equal(pixels, [0, 255, 255])


def test_32_bit_values_go_the_same_way_as_16_bit_ones() -> None:
    values = np.linspace(-30_000, 30_000, 64).reshape(8, 8)
    choices: tuple[dict[str, Any], ...] = (
        {},
        {"WindowCenter": 400, "WindowWidth": 3000},
        {"PixelPaddingValue": -30_000},
    )
    for rules in choices:
        short = read_dicom(dicom_file(values.astype(np.int16), **rules))
        # Pixel Padding Value is a 16-bit element; a 32-bit image can name only what fits into it.
        long = read_dicom(dicom_file(values.astype(np.int32), **rules))
        np.testing.assert_array_equal(short.pixels, long.pixels)


def test_a_window_can_be_chosen() -> None:
    stored = np.array([[0, 500, 1000]], np.uint16)
    data = dicom_file(stored, WindowCenter=40, WindowWidth=400)
    image = read_dicom(data, window=Window(500, 1000, WindowFunction.LINEAR_EXACT))
    np.testing.assert_array_equal(image.pixels[0], [0, 128, 255])
    assert image.rules == ("window 500/1000 LINEAR_EXACT",)


@pytest.mark.parametrize(
    ("attributes", "field"),
    [
        ({"RescaleSlope": 0, "RescaleIntercept": 1}, "RescaleSlope"),
        ({"RescaleSlope": 1, "RescaleIntercept": "1e400"}, "RescaleSlope"),
    ],
)
def test_a_rescale_that_can_not_be_is_refused(attributes: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        read_dicom(dicom_file(**attributes))
    assert caught.value.field == field


def lut(first: int, entries: list[int], bits: int = 16) -> Dataset:
    item = Dataset()
    item.LUTDescriptor = [len(entries), first, bits]
    item["LUTDescriptor"].VR = "SS" if first < 0 else "US"
    item.LUTData = np.array(entries, "<u2").tobytes()
    item["LUTData"].VR = "OW"
    return item


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ExplicitVRBigEndian], ids=lambda syntax: syntax.name)
def test_tables_take_the_nearest_end_for_values_outside(syntax: UID) -> None:
    """Modality LUT, then VOI LUT before the window, each clamped (PS3.3 C.11.1.1.1)."""
    modality, voi = lut(-1, [10, 20, 40]), lut(15, [0, 1000, 65_535])
    if syntax == ExplicitVRBigEndian:
        for item in (modality, voi):
            item.LUTData = np.frombuffer(item.LUTData, "<u2").astype(">u2").tobytes()
    stored = np.array([[-9, -1, 0, 1, 9]], np.int16)
    data = dicom_file(
        stored, syntax=syntax, ModalityLUTSequence=Sequence([modality]), VOILUTSequence=Sequence([voi]),
        WindowCenter=1, WindowWidth=1,
    )  # fmt: skip
    image = read_dicom(data)
    np.testing.assert_array_equal(image.pixels[0], [0, 0, 255, 255, 255])
    assert image.rules[0].startswith("modality LUT of 3 entries from -1")


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ExplicitVRBigEndian], ids=lambda syntax: syntax.name)
def test_tables_of_8_bit_entries(syntax: UID) -> None:
    item = lut(0, [0, 1, 2, 3], 8)
    item.LUTData = bytes([0, 85, 170, 255]) if syntax == ExplicitVRLittleEndian else bytes([85, 0, 255, 170])
    stored = np.array([[0, 1, 2, 3]], np.uint8)
    image = read_dicom(dicom_file(stored, syntax=syntax, VOILUTSequence=Sequence([item])))
    np.testing.assert_array_equal(image.pixels[0], [0, 85, 170, 255])


def test_a_table_shorter_than_it_says_is_refused() -> None:
    item = lut(0, [1, 2, 3])
    item.LUTDescriptor = [4000, 0, 16]
    with pytest.raises(InvalidInput, match="expected 4000 LUT entries, got 3"):
        read_dicom(dicom_file(VOILUTSequence=Sequence([item])))


def group(**macros: dict[str, Any]) -> Dataset:
    outer = Dataset()
    for keyword, attributes in macros.items():
        inner = Dataset()
        for name, value in attributes.items():
            setattr(inner, name, value)
        setattr(outer, keyword, Sequence([inner]))
    return outer


def test_frames_have_rules_facts_and_spacing_of_their_own() -> None:
    """Enhanced objects: the frame's functional group before the shared one (PS3.3 C.7.6.16.1)."""
    stored = np.array([[[0, 100, 200, 0]]] * 2, np.uint16)
    shared = group(
        FrameVOILUTSequence={"WindowCenter": 100, "WindowWidth": 201},
        PixelMeasuresSequence={"PixelSpacing": [0.5, 0.25]},
        FrameAnatomySequence={"FrameLaterality": "L"},
        PixelValueTransformationSequence={"RescaleSlope": 1, "RescaleIntercept": 0},
    )
    second = group(
        FrameVOILUTSequence={"WindowCenter": 1100, "WindowWidth": 201, "VOILUTFunction": "LINEAR_EXACT"},
        FrameAnatomySequence={"FrameLaterality": "R"},
        PixelValueTransformationSequence={"RescaleSlope": 1, "RescaleIntercept": 1000},
    )
    data = dicom_file(
        stored,
        SharedFunctionalGroupsSequence=Sequence([shared]),
        PerFrameFunctionalGroupsSequence=Sequence([Dataset(), second]),
    )
    one, two = read_dicom(data, frame_number=1), read_dicom(data, frame_number=2)
    assert one.rules == ("frame 1 of 2", "rescale slope 1 intercept 0", "window 100/201 LINEAR")
    assert two.rules == ("frame 2 of 2", "rescale slope 1 intercept 1000", "window 1100/201 LINEAR_EXACT")
    assert (one.facts.laterality, two.facts.laterality) == ("L", "R")
    assert one.spacing_mm == two.spacing_mm == (0.5, 0.25)
    np.testing.assert_array_equal(one.pixels[0], [1, 128, 255, 1])
