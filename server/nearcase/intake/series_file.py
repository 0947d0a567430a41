"""One file that holds a whole series -> its slices: a zip of DICOM files, DICOM of several frames, or NIfTI.

Call this in a sandbox. Files are parsed anew whenever a slice of theirs is asked for: only places are kept.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nearcase.errors import InvalidInput, Unsupported
from nearcase.intake import dicom
from nearcase.intake.archive import Archive, is_archive
from nearcase.intake.burned_in import TextPolicy, check_plain, check_text
from nearcase.intake.damage import typed_damage
from nearcase.intake.facts import read_facts
from nearcase.intake.header import read_header
from nearcase.intake.nifti import is_nifti, read_nifti_planes
from nearcase.intake.parse import Parsed, is_dicom, parse
from nearcase.intake.planes import Planes
from nearcase.intake.series import arrange
from nearcase.intake.slices import Slice, read_slices
from nearcase.intake.volume import read_unit, read_values
from nearcase.types import CaseFacts

MEDIA_TYPE = "application/zip"
_READ = "a zip of the DICOM files of a series, DICOM of several frames, or NIfTI"


@dataclass(frozen=True, slots=True)
class _Opened:
    """What the headers of one file say."""

    slices: tuple[Slice, ...]
    facts: CaseFacts
    unit: str


def read_series(data: bytes, text_policy: TextPolicy) -> Planes:
    """Returns the slices of the one series in a file.

    Files of a zip that hold no image are left out and counted. Its images must be of one series and one patient.

    Args:
        data: The file's bytes.
        text_policy: What is done about burned-in text; a series that would have to be masked is refused.

    Raises:
        InvalidInput: The file is damaged, holds several series, or no slices that make a volume; or the policy
            refuses it.
        Unsupported: Colour, or a coding that nothing here decodes.
    """
    if is_nifti(data):
        check_plain("NIfTI", text_policy)
        return read_nifti_planes(data)
    with typed_damage("DICOM", "DAMAGED_DICOM"):
        if is_archive(data):
            archive = Archive(data)
            return _series(len(archive), archive.read, text_policy, MEDIA_TYPE)
        if is_dicom(data):
            return _series(1, lambda number: data, text_policy, "application/dicom")
    raise InvalidInput(f"expected a volume ({_READ}), got another file", reason="UNKNOWN_FORMAT")


def _series(count: int, read: Callable[[int], bytes], text_policy: TextPolicy, media_type: str) -> Planes:
    opened: list[_Opened] = []
    left_out: Counter[str] = Counter()
    for number in range(count):
        try:
            opened.append(_open(read(number), number, text_policy))
        except (InvalidInput, Unsupported) as error:
            if error.reason not in ("NOT_DICOM", "NOT_AN_IMAGE", "NO_PIXELS") or count == 1:
                raise
            left_out[error.reason] += 1
    _check_one(opened)
    series = arrange([slice_ for each in opened for slice_ in each.slices])
    first = next(each for each in opened if each.slices[0].file_number == series.slices[0].file_number)
    return Planes(
        shape=(len(series.slices), series.slices[0].rows, series.slices[0].columns),
        direction=series.direction,
        plane=_reader(series.slices, read),
        facts=dataclasses.replace(first.facts, instance_uid=""),
        unit=first.unit,
        media_type=media_type,
        findings=(
            f"volume of {len(series.slices)} slices",
            *series.findings,
            *(f"{files} files left out ({reason})" for reason, files in sorted(left_out.items())),
        ),
    )


def _open(data: bytes, number: int, text_policy: TextPolicy) -> _Opened:
    parsed = parse(data)
    dicom._require_image(parsed)
    facts = read_facts(parsed.dataset, sop_class_uid=parsed.sop_class_uid)
    if check_text(parsed.dataset, (facts.sop_class_uid, parsed.sop_class_uid), text_policy) is not None:
        raise InvalidInput("a series whose images hold text can not be masked", reason="BURNED_IN")
    slices = read_slices(parsed.dataset, read_header(parsed.dataset), number)
    return _Opened(slices, facts, read_unit(parsed.dataset))


def _check_one(opened: Sequence[_Opened]) -> None:
    """A case is one series of one patient: facts of the first file must not be told of another's picture."""
    if not opened:
        raise InvalidInput("expected DICOM images in the zip, got none", reason="NO_PIXELS")
    kinds: dict[str, set[object]] = {
        "series": {each.slices[0].series_uid for each in opened},
        "patient": {(each.facts.patient_id, each.facts.patient_id_issuer) for each in opened},
    }
    for noun, found in kinds.items():
        if len(found) > 1:
            raise InvalidInput(f"expected the files of one {noun}, got those of {len(found)}", field="image")


def _reader(slices: Sequence[Slice], read: Callable[[int], bytes]) -> Callable[[int], NDArray[np.float32]]:
    """Keeps the file that was read last, for series of several frames in one."""
    last: list[tuple[int, Parsed]] = []

    def plane(number: int) -> NDArray[np.float32]:
        slice_ = slices[number]
        if not last or last[0][0] != slice_.file_number:
            last[:] = [(slice_.file_number, parse(read(slice_.file_number)))]
        parsed = last[0][1]
        with typed_damage("DICOM", "DAMAGED_DICOM"):
            values, _ = read_values(parsed, read_header(parsed.dataset), slice_.frame_number)
        return values

    return plane
