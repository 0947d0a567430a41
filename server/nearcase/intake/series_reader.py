"""Files -> volumes: each file is read in a child process, the volume is put together here from numbers only."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nearcase.errors import InvalidInput, NearcaseError
from nearcase.intake.sandbox import Sandbox
from nearcase.intake.series import Series, arrange
from nearcase.intake.series_job import series_job
from nearcase.intake.slices import Slice, unpack_slices
from nearcase.intake.suv import NoSuv, Suv
from nearcase.intake.volume import Volume, check_voxel_count
from nearcase.types import CaseFacts

_CHUNK_BYTES = 64 << 20  # of float32 in one answer of a child
_CHUNK_FRAMES = 512


@dataclass(frozen=True, slots=True)
class Scan:
    """One file whose header was read."""

    path: Path
    slices: tuple[Slice, ...]
    facts: CaseFacts
    unit: str
    suv: Suv | NoSuv | None


@dataclass(frozen=True, slots=True)
class Folder:
    """Files of any number of series, and why some can not be used."""

    scans: tuple[Scan, ...]
    refused: dict[str, int] = field(default_factory=dict)  # reason in words: number of files

    def by_series(self) -> list[list[Scan]]:
        """Returns the scans of each series, the largest first."""
        groups: dict[str, list[Scan]] = {}
        for scan in self.scans:
            groups.setdefault(scan.slices[0].series_uid, []).append(scan)
        return sorted(groups.values(), key=lambda group: -sum(len(scan.slices) for scan in group))


class SeriesReader:
    """Reads DICOM series; hostile files can only kill its child process.

    Args:
        sandbox: Runs series_job; open_sandbox() makes one.
    """

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    def scan(self, paths: Iterable[Path]) -> Folder:
        """Reads the headers of files; those that are no grey DICOM image are counted by reason."""
        scans: list[Scan] = []
        refused: Counter[str] = Counter()
        for path in paths:
            try:
                scans.append(self._scan_one(path, len(scans)))
            except NearcaseError as error:
                refused[str(error)] += 1
        return Folder(tuple(scans), dict(refused))

    def arrange(self, scans: Sequence[Scan]) -> Series:
        """Returns the order of the slices of the scans.

        Raises:
            InvalidInput: They make no volume.
        """
        return arrange([slice_ for scan in scans for slice_ in scan.slices])

    def volume(
        self, scans: Sequence[Scan], on_slices: Callable[[int, int], object] = lambda done, all_: None
    ) -> Volume:
        """Returns the voxels of the scans.

        Args:
            scans: Of one series, as scan() returned them.
            on_slices: Told how many slices are read, of how many.

        Raises:
            InvalidInput: They make no volume, or a file of it can not be read.
            Unsupported: Its pixels are coded in a way that is not read.
        """
        series = self.arrange(scans)
        of_file = {scan.slices[0].file_number: scan for scan in scans}
        first = series.slices[0]
        voxels = np.empty(self._shape(series), np.float32)
        padded = 0
        for place, file_number, frames in _runs(series):
            values, count = self._values(of_file[file_number].path, frames, (first.rows, first.columns))
            voxels[place : place + len(frames)] = values
            padded += count
            on_slices(place + len(frames), len(series.slices))
        source = of_file[first.file_number]
        return Volume(
            voxels=voxels,
            spacing_mm=series.spacing_mm,
            origin_mm=series.origin_mm,
            direction=series.direction,
            offsets_mm=series.offsets_mm,
            facts=source.facts,
            unit=source.unit,
            suv=_one_suv([of_file[number] for number in sorted({each.file_number for each in series.slices})]),
            findings=(*series.findings, *([f"{padded} voxels of padding take the smallest value"] if padded else [])),
        )

    def _shape(self, series: Series) -> tuple[int, int, int]:
        shape = (len(series.slices), series.slices[0].rows, series.slices[0].columns)
        check_voxel_count(shape)
        return shape

    def _scan_one(self, path: Path, file_number: int) -> Scan:
        words, blobs = self._sandbox.run(path.read_bytes(), {})
        if "slices" not in words or len(blobs) != 1:
            raise InvalidInput("expected a DICOM file, got NIfTI", reason="NOT_DICOM")
        slices = unpack_slices(words["slices"], blobs[0], file_number)
        return Scan(path, slices, CaseFacts(**words["facts"]), words["unit"], _suv(words["suv"]))

    def _values(self, path: Path, frames: list[int], size: tuple[int, int]) -> tuple[NDArray[np.float32], int]:
        words, blobs = self._sandbox.run(path.read_bytes(), {"frames": frames})
        expected = 4 * size[0] * size[1]
        if len(blobs) != len(frames) or any(len(blob) != expected for blob in blobs):
            raise InvalidInput("reading this file gave no voxels that make sense", reason="DECODE_CRASH")
        return np.frombuffer(b"".join(blobs), np.float32).reshape(len(frames), *size), int(words["padded"])


def open_sandbox() -> Sandbox:
    """Returns one child process for series_job."""
    return Sandbox(series_job, workers=1)


def _runs(series: Series) -> Iterator[tuple[int, int, list[int]]]:
    """Yields (place in the volume, file, its frames): as many frames at once as fit one answer."""
    first = series.slices[0]
    most = max(1, min(_CHUNK_FRAMES, _CHUNK_BYTES // (4 * first.rows * first.columns)))
    place = 0
    while place < len(series.slices):
        file_number = series.slices[place].file_number
        frames = []
        for each in series.slices[place : place + most]:
            if each.file_number != file_number:
                break
            frames.append(each.frame_number)
        yield place, file_number, frames
        place += len(frames)


def _suv(words: dict[str, Any] | None) -> Suv | NoSuv | None:
    if words is None:
        return None
    return Suv(words["factor"], words["rule"]) if words["is_known"] else NoSuv(words["reason"])


def _one_suv(scans: list[Scan]) -> Suv | NoSuv | None:
    """The factor of the whole series; slices that disagree have none together."""
    first = scans[0].suv
    for scan in scans:
        if isinstance(scan.suv, NoSuv):
            return scan.suv
        if isinstance(first, Suv) and isinstance(scan.suv, Suv):
            if not math.isclose(first.factor, scan.suv.factor, rel_tol=1e-4):
                return NoSuv("the slices of the series have different SUV factors")
        elif scan.suv is not first:
            return NoSuv("some slices of the series are no PET")
    return first
