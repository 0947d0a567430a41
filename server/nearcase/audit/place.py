"""How far the collector has the trail, in a file that a power cut leaves whole: the old one or the new."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from nearcase.audit.files import files_in
from nearcase.audit.key import sync_folder

NAME = "sent"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Place:
    """How far the collector has the trail; as it is made, before the oldest record."""

    seq: int = 0
    file: int = 0
    offset: int = 0  # where the next record begins


def read_place(folder: Path, last: int) -> Place:
    """Returns where sending goes on; where nobody knows, before the oldest record: one that comes twice does no harm.

    Args:
        folder: Of the trail.
        last: Number of its last record.
    """
    place = _read(folder)
    if place and place.seq <= last and _is_there(folder, place):
        return place
    if last:
        log.warning("how far the audit collector came is not known: it is sent the trail from its oldest record on")
    return Place()


def write_place(folder: Path, place: Place) -> None:
    """Returns when it is on the disk, or could not be written: then messages are sent twice some day."""
    part = folder / f"{NAME}.part"
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(asdict(place), file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(folder / NAME)
        sync_folder(folder)
    except OSError as error:
        log.warning("how far the audit collector came can not be noted: %s", error.strerror)


def _read(folder: Path) -> Place | None:
    try:
        found = json.loads((folder / NAME).read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    names = [field.name for field in fields(Place)]
    if not isinstance(found, dict) or sorted(found) != sorted(names):
        return None
    if any(type(value) is not int or value < 0 for value in found.values()):
        return None
    return Place(**found)


def _is_there(folder: Path, place: Place) -> bool:
    """Returns whether a line of the trail ends there."""
    if place == Place():
        return True
    try:
        path = next(file.path for file in files_in(folder) if file.number == place.file)
        with path.open("rb") as file:
            if place.offset > os.fstat(file.fileno()).st_size:
                return False
            file.seek(max(0, place.offset - 1))
            return not place.offset or file.read(1) == b"\n"
    except (OSError, StopIteration):
        return False
