"""Rendering compared with DCMTK's, a reader from another house: its programs draw what a workstation would show."""

from __future__ import annotations

import shutil
import subprocess
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from numpy.typing import NDArray
from pydicom.uid import JPEGLSLossless, JPEGLSNearLossless
from test_dicom import SAMPLES, expected_refusal

from nearcase.intake.dicom import read_dicom
from nearcase.types import Image

MOST_LEVELS = 2.0
"""Mean difference: DCMTK rounds down where we round to the nearest."""

COHORT = Path(__file__).parents[2] / "shared" / "data" / "ct_contrast_dicom.zip"
PROGRAMS = ("dcmj2pnm", "dcml2pnm")
JPEG_2000 = "DCMTK has no JPEG 2000 decoder"
LEFT_OUT = {
    "693_J2KI.dcm": JPEG_2000,
    "693_J2KR.dcm": JPEG_2000,
    "GDCMJ2K_TextGBR.dcm": JPEG_2000,
    "J2K_pixelrep_mismatch.dcm": JPEG_2000,
    "JPEG2000.dcm": JPEG_2000,
    "MR2_J2KI.dcm": JPEG_2000,
    "MR2_J2KR.dcm": JPEG_2000,
    "MR_small_jp2klossless.dcm": JPEG_2000,
    "RG1_J2KI.dcm": JPEG_2000,
    "RG1_J2KR.dcm": JPEG_2000,
    "RG3_J2KI.dcm": JPEG_2000,
    "RG3_J2KR.dcm": JPEG_2000,
    "SC_rgb_gdcm_KY.dcm": JPEG_2000,
    "US1_J2KI.dcm": JPEG_2000,
    "US1_J2KR.dcm": JPEG_2000,
    "emri_small_jpeg_2k_lossless.dcm": JPEG_2000,
    "examples_jpeg2k.dcm": JPEG_2000,
    "explicit_VR-UN.dcm": JPEG_2000,
    "SC_rgb_jpeg.dcm": "DCMTK refuses its fragments of odd length",
    "SC_rgb_32bit.dcm": "DCMTK draws no colour of 32 bits",
    "SC_rgb_32bit_2frame.dcm": "DCMTK draws no colour of 32 bits",
    "SC_rgb_expb_32bit.dcm": "DCMTK draws no colour of 32 bits",
    "SC_rgb_expb_32bit_2frame.dcm": "DCMTK draws no colour of 32 bits",
    "rtdose_expb.dcm": "DCMTK draws 32 bits in big endian unlike the same dose in little endian",
    "rtdose_expb_1frame.dcm": "DCMTK draws 32 bits in big endian unlike the same dose in little endian",
    "eCT_Supplemental.dcm": "DCMTK reads no windows of functional groups",
    "gdcm-US-ALOKA-16.dcm": "DCMTK refuses its palette, whose VR is wrong",
    "gdcm-US-ALOKA-16_big.dcm": "DCMTK refuses its palette, whose VR is wrong",
}

pytestmark = pytest.mark.skipif(
    any(shutil.which(program) is None for program in PROGRAMS),
    reason="DCMTK's programs are not installed: apt-get install dcmtk",
)


@pytest.fixture(autouse=True)
def pydicom_may_warn() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def drawn_by_dcmtk(path: Path, image: Image, out: Path) -> NDArray[np.uint8] | str:
    """Returns DCMTK's picture of the same frame under the same VOI, or what it says."""
    is_jpeg_ls = image.transfer_syntax_uid in (JPEGLSLossless, JPEGLSNearLossless)
    program = shutil.which(PROGRAMS[is_jpeg_ls])
    options = ["-O", "+F", str(image.frame_number), *([] if image.is_color else voi_options(image.rules))]
    command = [str(program), "--quiet", *options, str(path), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if not out.exists():
        return done.stderr
    with PIL.Image.open(out) as opened:
        return np.asarray(opened)


def voi_options(rules: tuple[str, ...]) -> list[str]:
    if any(rule.startswith("window") and "passed over" not in rule for rule in rules):
        return ["+Wi", "1"]
    return ["+Wl", "1"] if any(rule.startswith("VOI LUT") for rule in rules) else ["+Wm"]


def assert_alike(path: Path, image: Image, out: Path) -> None:
    theirs = drawn_by_dcmtk(path, image, out)
    assert not isinstance(theirs, str), theirs
    assert theirs.shape == image.pixels.shape
    assert np.abs(theirs - image.pixels.astype(float)).mean() <= MOST_LEVELS


@pytest.mark.parametrize(
    "path", [path for path in SAMPLES if expected_refusal(path) is None], ids=lambda path: "-".join(path.parts[-3:])
)
def test_real_files_look_as_dcmtk_draws_them(path: Path, tmp_path: Path) -> None:
    image = read_dicom(path.read_bytes())
    if path.name not in LEFT_OUT:
        assert_alike(path, image, tmp_path / "drawn.ppm")
        return
    theirs = drawn_by_dcmtk(path, image, tmp_path / "drawn.ppm")
    refused = isinstance(theirs, str) or np.abs(theirs - image.pixels.astype(float)).mean() > MOST_LEVELS
    assert refused, "DCMTK draws this file like us now: take it off the list"


@pytest.mark.skipif(not COHORT.exists(), reason="the archive with the 100 CT files is not beside the project")
def test_the_ct_cohort_looks_as_dcmtk_draws_it(tmp_path: Path) -> None:
    compared = 0
    with zipfile.ZipFile(COHORT) as archive:
        for name in archive.namelist():
            if name.endswith(".dcm"):
                path = tmp_path / f"{compared}.dcm"
                path.write_bytes(archive.read(name))
                assert_alike(path, read_dicom(path.read_bytes()), tmp_path / f"{compared}.ppm")
                compared += 1
    assert compared == 100
