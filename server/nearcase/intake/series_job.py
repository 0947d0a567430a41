"""What a child process does for a volume: headers first, and then the values of the frames that are wanted."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from nearcase.errors import InvalidInput
from nearcase.intake import dicom
from nearcase.intake.damage import typed_damage
from nearcase.intake.elements import text
from nearcase.intake.facts import read_facts
from nearcase.intake.header import read_header
from nearcase.intake.nifti import describe_nifti, is_nifti
from nearcase.intake.parse import parse
from nearcase.intake.slices import pack_slices, read_slices
from nearcase.intake.suv import Suv, read_suv
from nearcase.intake.volume import read_unit, read_values

Answer = tuple[dict[str, Any], list[bytes]]


def series_job(data: bytes, options: Mapping[str, Any]) -> Answer:
    """Runs in the child: places of all frames, or with `frames` in the options their values; NIfTI is described."""
    if is_nifti(data):
        return describe_nifti(data), []
    with typed_damage("DICOM", "DAMAGED_DICOM"):
        frames = options.get("frames")
        return _places(data) if frames is None else _values(data, frames)


def _places(data: bytes) -> Answer:
    parsed = parse(data)
    dicom._require_image(parsed)
    header = read_header(parsed.dataset)
    words, numbers = pack_slices(read_slices(parsed.dataset, header, 0))
    facts = read_facts(parsed.dataset, sop_class_uid=parsed.sop_class_uid)
    suv = read_suv(parsed.dataset) if text(parsed.dataset, "Modality").upper() == "PT" else None
    return {
        "slices": words,
        "facts": dataclasses.asdict(facts),
        "unit": read_unit(parsed.dataset),
        "suv": None if suv is None else {**dataclasses.asdict(suv), "is_known": isinstance(suv, Suv)},
    }, [numbers]


def _values(data: bytes, frames: list[int]) -> Answer:
    parsed = parse(data)
    dicom._require_image(parsed)
    header = read_header(parsed.dataset)
    padded, blobs = 0, []
    for frame in frames:
        if not 1 <= frame <= header.frame_count:
            raise InvalidInput(f"expected a frame from 1 to {header.frame_count}, got {frame}", reason="NO_SUCH_FRAME")
        values, count = read_values(parsed, header, frame)
        padded += count
        blobs.append(values.tobytes())
    return {"padded": padded}, blobs
