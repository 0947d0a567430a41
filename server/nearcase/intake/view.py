"""A file as a person asks to see it: one frame in a window of their choice.

The encoder never sees these: its recipe, and the file's own window, decide what is searched for.
"""

from __future__ import annotations

from nearcase.errors import InvalidInput
from nearcase.intake.damage import typed_damage
from nearcase.intake.dicom import read_dicom
from nearcase.intake.files import read_image
from nearcase.intake.frames import choose_frame
from nearcase.intake.header import GREY, read_header
from nearcase.intake.nifti import is_nifti, read_nifti_image
from nearcase.intake.parse import is_dicom, parse
from nearcase.intake.presets import FIRST, window_for
from nearcase.intake.windows import Window
from nearcase.types import Image


def read_view(data: bytes, *, frame_number: int | None = None, window: str = FIRST) -> Image:
    """Returns one frame of a DICOM, PNG or JPEG file, or one axial slice of a NIfTI file.

    Args:
        data: The file's bytes. Call this in a sandbox.
        frame_number: Counts from 1; the middle frame when left out.
        window: Which grey values are shown, as presets.parse_window; by default what the file says.

    Raises:
        InvalidInput: The file can not be read, or has no such frame or window.
        Unsupported: A DICOM object that is no image, or a coding that nothing here decodes.
    """
    if is_nifti(data):
        return read_nifti_image(data, frame_number=frame_number, window=window)
    if window == FIRST:
        return read_image(data, frame_number=frame_number)
    if not is_dicom(data):
        raise InvalidInput("expected a DICOM or NIfTI file for a window, got another", field="window")
    return read_dicom(data, frame_number=frame_number, window=_window(data, frame_number, window))


def _window(data: bytes, frame_number: int | None, words: str) -> Window | None:
    with typed_damage("DICOM", "DAMAGED_DICOM"):
        dataset = parse(data).dataset
        header = read_header(dataset)
        if header.photometric not in GREY:
            raise InvalidInput("expected a grey image for a window, got colour", field="window")
        return window_for(dataset, choose_frame(frame_number, header.frame_count), words)
