"""Windows that a person chooses: by name, by number, by center and width."""

from __future__ import annotations

import warnings
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from dicom_files import dicom_file
from hypothesis import given
from hypothesis import strategies as st
from nifti_files import nifti_file
from PIL import Image as PillowImage

from nearcase.errors import InvalidInput
from nearcase.intake.presets import CT_WINDOWS, parse_window
from nearcase.intake.view import read_view
from nearcase.intake.windows import Window, WindowFunction, apply_window

HOUNSFIELD = np.arange(-2048, 2048, dtype=np.int16).reshape(64, 64)


def ct(**attributes: Any) -> bytes:
    windows = {"WindowCenter": [40, 400], "WindowWidth": [300, 2000], **attributes}
    return dicom_file(HOUNSFIELD, **{name: value for name, value in windows.items() if value or name == "Modality"})


@pytest.mark.parametrize("name", CT_WINDOWS)
def test_preset_by_name_shows_its_range(name: str) -> None:
    window = CT_WINDOWS[name]
    assert parse_window(name.upper().replace("-", " ")) == window
    image = read_view(ct(), window=name)
    expected = np.rint(255 * apply_window(HOUNSFIELD.astype(np.float64), window))
    np.testing.assert_array_equal(image.pixels, expected)
    black, white = HOUNSFIELD[image.pixels == 0].max(), HOUNSFIELD[image.pixels == 255].min()
    assert white - black == pytest.approx(window.width, abs=0.02 * window.width + 2)
    assert (white + black) / 2 == pytest.approx(window.center, abs=2)
    assert f"window {window.center:g}/{window.width:g} LINEAR" in image.rules


@given(center=st.integers(-2000, 4000), width=st.integers(1, 5000))
def test_center_and_width_are_read_as_written(center: int, width: int) -> None:
    assert parse_window(f"{center}/{width}") == Window(center, width)


@given(st.text(max_size=20) | st.from_regex(r"[0-9./+-]{1,9}", fullmatch=True))
def test_any_words_are_a_window_or_refused_in_one_line(words: str) -> None:
    try:
        choice = parse_window(words)
    except InvalidInput as error:
        said = str(error)
    else:
        said = ""
        assert choice > 0 if isinstance(choice, int) else choice.is_valid
    assert "\n" not in said


@pytest.mark.parametrize(
    "words", ["", "0", "-1", "40/", "40/0", "40/0.5", "nan/1", "40/-80", "1e3/1", "liver2", "40/80/3"]
)
def test_malformed_windows_are_refused(words: str) -> None:
    with pytest.raises(InvalidInput, match="expected a window"):
        parse_window(words)


def test_first_is_what_the_file_says() -> None:
    np.testing.assert_array_equal(read_view(ct(), window="first").pixels, read_view(ct()).pixels)
    np.testing.assert_array_equal(read_view(ct(), window="1").pixels, read_view(ct()).pixels)
    assert "window 400/2000 LINEAR" in read_view(ct(), window="2").rules


def test_number_keeps_the_function_of_the_file() -> None:
    image = read_view(ct(VOILUTFunction="SIGMOID"), window="2")
    expected = apply_window(HOUNSFIELD.astype(np.float64), Window(400, 2000, WindowFunction.SIGMOID))
    np.testing.assert_array_equal(image.pixels, np.rint(255 * expected))


def test_real_file_with_two_windows(pydicom_files: Path, pydicom_data: Path) -> None:
    found = 0
    for folder in (pydicom_files, pydicom_data):
        for path in sorted(folder.glob("*.dcm")):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # some of these files are damaged on purpose
                dataset = pydicom.dcmread(path, specific_tags=["WindowCenter", "WindowWidth"], force=True)
                centers = dataset.get("WindowCenter")
            if not isinstance(centers, pydicom.multival.MultiValue) or len(centers) < 2:
                continue
            image = read_view(path.read_bytes(), window="2")
            assert f"window {float(centers[1]):g}/{float(dataset.WindowWidth[1]):g}" in " ".join(image.rules)
            found += 1
    assert found


@pytest.mark.parametrize(
    ("data", "window", "words"),
    [
        (ct(), "3", "from 1 to 2"),
        (ct(WindowCenter=None, WindowWidth=None), "1", "no window"),
        (ct(WindowCenter=[1, 2], WindowWidth=[1, 0]), "2", "standard"),
        (ct(Modality="MR"), "lung", "CT"),
        (ct(Modality=None), "lung", "CT"),
        (dicom_file(np.zeros((4, 4, 3), np.uint8)), "40/80", "grey"),
        (ct()[:300], "40/80", "expected"),
        (b"\x89PNG\r\n\x1a\n", "40/80", "DICOM or NIfTI"),
        (nifti_file(np.zeros((4, 4, 4), np.int16)), "2", "no windows"),
    ],
)
def test_windows_that_can_not_be_are_refused(data: bytes, window: str, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        read_view(data, window=window)


def test_center_and_width_serve_any_modality() -> None:
    mr = read_view(ct(Modality="MR"), window="40/300")
    np.testing.assert_array_equal(mr.pixels, read_view(ct()).pixels)


def test_picture_without_a_window_is_read_as_ever() -> None:
    out = BytesIO()
    PillowImage.new("L", (3, 2), 7).save(out, "PNG")
    assert read_view(out.getvalue()).pixels.tolist() == [[7] * 3] * 2
