"""Text in the picture: refused where it is stated or likely, masked where the file says where the image is."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from dicom_files import dicom_file, replaced
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    CTImageStorage,
    MultiFrameSingleBitSecondaryCaptureImageStorage,
    SecondaryCaptureImageStorage,
    UltrasoundImageStorage,
    XRayAngiographicImageStorage,
)

from nearcase.errors import InvalidInput
from nearcase.intake.burned_in import KEEP_TEXT, MAX_REGIONS, Regions, TextPolicy
from nearcase.intake.dicom import read_dicom
from nearcase.intake.files import read_image
from nearcase.intake.render import encode_thumbnail

REFUSE = TextPolicy(refuses=True, takes_plain=False)
MASK = TextPolicy(refuses=True, masks=True, takes_plain=False)
ASK = TextPolicy(masks=True)
WHITE = np.full((40, 60), 255, np.uint8)
Box = tuple[int, int, int, int]


def region(box: Box, kind: int = 1) -> Dataset:
    """One item of the sequence; box is (first row, first column, last row, last column)."""
    item = Dataset()
    item.RegionSpatialFormat, item.RegionDataType, item.RegionFlags = kind, 1, 0
    item.RegionLocationMinY0, item.RegionLocationMinX0, item.RegionLocationMaxY1, item.RegionLocationMaxX1 = box
    return item


def ultrasound(*regions: Dataset, pixels: NDArray[Any] = WHITE, **attributes: Any) -> bytes:
    given: dict[str, Any] = {
        "Modality": "US",
        "SOPClassUID": UltrasoundImageStorage,
        "WindowCenter": 128,
        "WindowWidth": 256,
    }
    if regions:
        given["SequenceOfUltrasoundRegions"] = Sequence(regions)
    return dicom_file(pixels, **(given | attributes))


def refusal(data: bytes, policy: TextPolicy) -> str:
    with pytest.raises(InvalidInput) as refused:
        read_image(data, text_policy=policy)
    assert refused.value.reason == "BURNED_IN"
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize(
    ("attributes", "is_taken"),
    [
        ({"Modality": "CT"}, True),
        ({"Modality": "MR", "BurnedInAnnotation": "NO"}, True),
        ({"Modality": "CT", "BurnedInAnnotation": "YES"}, False),
        ({"Modality": "CT", "BurnedInAnnotation": ["NO", "YES"]}, False),
        ({"Modality": "US", "BurnedInAnnotation": ["NO", "NO"]}, False),
        ({"Modality": "CT", "BurnedInAnnotation": ""}, True),
        ({"Modality": "US"}, False),
        ({"Modality": "US", "BurnedInAnnotation": "NO"}, True),
        ({"Modality": "US", "BurnedInAnnotation": "UNKNOWN"}, False),
        ({"Modality": "MR", "SOPClassUID": UltrasoundImageStorage}, False),
        ({"Modality": "OT"}, False),
        ({"Modality": "XA", "SOPClassUID": XRayAngiographicImageStorage}, False),
        ({"Modality": "XA", "BurnedInAnnotation": "NO"}, True),
        ({"Modality": ""}, False),
        ({"Modality": "ES"}, False),
        ({"Modality": "SM"}, False),
        ({"Modality": "CT", "SOPClassUID": SecondaryCaptureImageStorage}, False),
        ({"Modality": "CT", "SOPClassUID": MultiFrameSingleBitSecondaryCaptureImageStorage}, False),
        ({"Modality": "CT", "SOPClassUID": SecondaryCaptureImageStorage, "BurnedInAnnotation": "NO"}, True),
        ({"Modality": "CR", "ConversionType": "DF"}, False),
        ({"Modality": "CT", "ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}, False),
        ({"Modality": "CT", "ImageType": ["DERIVED", "SECONDARY", "MPR"]}, True),
        ({"Modality": "CT", "SOPClassUID": CTImageStorage, "ImageType": "ORIGINAL"}, True),
    ],
    ids=str,
)
@pytest.mark.parametrize("policy", [REFUSE, MASK], ids=["refuse", "mask"])
def test_what_is_taken(attributes: dict[str, Any], is_taken: bool, policy: TextPolicy) -> None:
    data = dicom_file(**attributes)
    if not is_taken:
        assert "Burned" in refusal(data, policy) or "burned" in refusal(data, policy)
    else:
        np.testing.assert_array_equal(read_image(data, text_policy=policy).pixels, read_image(data).pixels)
    assert read_image(data, text_policy=ASK).rules == read_image(data).rules  # a query is never refused


def test_small_letters_count() -> None:
    stated = dicom_file(BurnedInAnnotation="YES")
    assert "states YES" in refusal(replaced(stated, b"CS\x04\0YES ", b"CS\x04\0yes "), REFUSE)


@pytest.mark.parametrize("stated", [None, "YES", "NO", "UNKNOWN"])
@pytest.mark.parametrize("policy", [MASK, ASK], ids=["adding", "asking"])
def test_ultrasound_is_masked_to_its_regions(stated: str | None, policy: TextPolicy) -> None:
    attributes: dict[str, Any] = {} if stated is None else {"BurnedInAnnotation": stated}
    data = ultrasound(region((10, 5, 19, 24)), region((25, 30, 34, 59), kind=3), **attributes)
    image = read_image(data, text_policy=policy)
    expected = np.zeros_like(WHITE)
    expected[10:20, 5:25] = 255
    expected[25:35, 30:60] = 255
    np.testing.assert_array_equal(image.pixels, expected)
    assert image.rules[-1] == "masked outside 2 ultrasound regions"
    thumbnail = np.asarray(PIL.Image.open(BytesIO(encode_thumbnail(image))))
    assert thumbnail[:2].max() < 16
    if stated != "NO":
        refusal(data, REFUSE)


def test_colour_and_every_frame_are_masked() -> None:
    frames = np.full((3, 40, 60, 3), 200, np.uint8)
    data = ultrasound(region((10, 5, 19, 24)), pixels=frames)
    for number in (1, 3):
        pixels = read_dicom(data, frame_number=number, text_policy=MASK).pixels
        assert pixels.shape == (40, 60, 3)
        assert pixels[10:20, 5:25].min() == 200
        assert int(pixels.sum()) == 10 * 20 * 3 * 200


@pytest.mark.parametrize(
    "regions",
    [
        [],
        [region((0, 0, 39, 59))],
        [region((0, 0, 40, 60))],
        [region((0, 0, 20, 59)), region((21, 0, 39, 59))],
        [region((10, 5, 60, 24))],
        [region((10, 5, 19, 24)), region((10, 5, 60, 24))],
        [region((19, 5, 10, 24))],
        [region((10, 70, 19, 80))],
        [region((10, 5, 19, 24), kind=0)],
        [region((10, 5, 19, 24), kind=5)],
        [region((10, 5, 19, 24))] * (MAX_REGIONS + 1),
        [Dataset()],
    ],
    ids=[
        "none", "whole", "whole from 1", "whole in two", "past the frame", "one of two past the frame", "turned round",
        "beside the frame", "no format", "graphics", "too many", "empty item",
    ],
)  # fmt: skip
def test_regions_that_can_not_be_right_mask_nothing_and_are_refused(regions: list[Dataset]) -> None:
    assert "no such statement" in refusal(ultrasound(*regions), MASK)
    assert "masked" not in str(read_image(ultrasound(*regions), text_policy=ASK).rules)


def test_regions_of_what_is_no_ultrasound_are_no_mask() -> None:
    refusal(ultrasound(region((10, 5, 19, 24)), Modality="OT", SOPClassUID=SecondaryCaptureImageStorage), MASK)


def test_plain_files_are_refused_until_they_are_trusted() -> None:
    for kind in ("PNG", "JPEG"):
        out = BytesIO()
        PIL.Image.fromarray(WHITE).save(out, kind)
        assert kind in refusal(out.getvalue(), REFUSE)
        trusted = TextPolicy(refuses=True, masks=True, takes_plain=True)
        assert read_image(out.getvalue(), text_policy=trusted).pixels.shape == WHITE.shape
        assert read_image(out.getvalue(), text_policy=KEEP_TEXT).pixels.shape == WHITE.shape


@given(st.data())
def test_the_mask_is_the_union_of_the_boxes(data: st.DataObject) -> None:
    rows, columns = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 12))
    corners = st.tuples(*[st.integers(0, rows - 1), st.integers(0, columns - 1)] * 2)
    drawn = data.draw(st.lists(corners, min_size=1, max_size=4))
    boxes = tuple((min(a, c), min(b, d), max(a, c), max(b, d)) for a, b, c, d in drawn)
    masked = Regions(rows, columns, boxes).masked(np.full((rows, columns), 9, np.uint8))
    for row, column in np.ndindex(rows, columns):
        is_in = any(top <= row <= bottom and left <= column <= right for top, left, bottom, right in boxes)
        assert masked[row, column] == (9 if is_in else 0)


def test_text_beside_a_region_is_not_averaged_into_it() -> None:
    pixels = np.zeros((1200, 1600), np.uint8)
    pixels[:401] = 255  # text, down to the last row before the region
    data = ultrasound(region((401, 0, 1199, 1599)), pixels=pixels)
    image = read_image(data, text_policy=MASK, needed_px=60)
    assert image.pixels.max() == 0


REAL = {
    "OBXXXX1A.dcm": "masked outside 2 ultrasound regions",
    "gdcm-US-ALOKA-16.dcm": "masked outside 2 ultrasound regions",
    "color3d_jpeg_baseline.dcm": "masked outside 1 ultrasound region",
    "JPGLosslessP14SV1_1s_1f_8b.dcm": "masked outside 1 ultrasound region",
    "US1_UNCI.dcm": "refused",
    "vlut_04.dcm": "refused",
    "examples_ybr_color.dcm": "refused",  # its regions are of the frame before it was scaled to half
    "examples_palette.dcm": "refused",  # its regions are of the frame before it was cropped
    "CT_small.dcm": "",
    "emri_small.dcm": "",
}


@pytest.mark.parametrize("name", REAL)
def test_real_files(name: str, pydicom_data: Path, pydicom_files: Path) -> None:
    found = [file for folder in (pydicom_data, pydicom_files) for file in folder.rglob(name)]
    if not found:
        pytest.skip(f"{name} is not in this version of pydicom and pydicom-data")
    data = found[0].read_bytes()
    if REAL[name] == "refused":
        refusal(data, MASK)
        return
    image, plain = read_image(data, text_policy=MASK), read_image(data)
    rules = image.rules
    assert (rules[-1] if rules and "masked" in rules[-1] else "") == REAL[name]
    changed = np.mean(image.pixels != plain.pixels)
    assert changed == 0 if not REAL[name] else changed < 0.5
