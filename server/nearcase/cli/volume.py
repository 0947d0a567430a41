"""Volumes for the commands: the series of a folder, and one slice of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, track

from nearcase.cli.files import find_files
from nearcase.cli.options import progress_console
from nearcase.errors import InvalidInput, NearcaseError
from nearcase.intake.frames import choose_frame
from nearcase.intake.nifti import MEDIA_TYPE
from nearcase.intake.series_reader import Folder, Scan, SeriesReader, open_sandbox
from nearcase.intake.volume import describe


def describe_folder(folder: Path) -> dict[str, Any]:
    """Returns what each series of a folder is, the largest first, and which files are none and why.

    Raises:
        InvalidInput: No file of the folder is a grey DICOM image.
    """
    with open_sandbox() as sandbox:
        reader = SeriesReader(sandbox)
        found = _scan(reader, folder)
        series = [
            {"facts": _facts(scans), "files": len(scans), **_described(reader, scans)} for scans in found.by_series()
        ]
    return {"folder": str(folder), "series": series, "left_out": found.refused}


def describe_volume_of(file: Path, media_type: str) -> dict[str, Any]:
    """Returns the volume in one file: NIfTI, or a DICOM object of several frames."""
    with open_sandbox() as sandbox:
        if media_type == MEDIA_TYPE:
            return sandbox.run(file.read_bytes())[0]
        reader = SeriesReader(sandbox)
        found = reader.scan([file])
        if not found.scans:
            return {"refused": next(iter(found.refused))}
        return _described(reader, found.scans)


def choose_slice(folder: Path, number: int | None) -> tuple[Path, int, str]:
    """Returns file, frame and description of a slice of the largest series of a folder.

    Args:
        folder: Holds the series.
        number: Counts from 1 in the order of positions; the middle slice when left out.

    Raises:
        InvalidInput: There is no series that makes a volume, or no such slice.
    """
    with open_sandbox() as sandbox:
        reader = SeriesReader(sandbox)
        groups = _scan(reader, folder).by_series()
        series = reader.arrange(groups[0])
    place = choose_frame(number, len(series.slices))
    chosen = series.slices[place - 1]
    path = next(scan.path for scan in groups[0] if scan.slices[0].file_number == chosen.file_number)
    which = f" of the largest of {len(groups)} series" if len(groups) > 1 else ""
    notes = f" ({'; '.join(series.findings)})" if series.findings else ""
    return path, chosen.frame_number, f"slice {place} of {len(series.slices)}{which}{notes}"


@dataclass(frozen=True, slots=True)
class Chosen:
    """Images of one series to send, in the order of their positions."""

    images: tuple[tuple[Path, int], ...]  # file and frame, which counts from 1
    note: str  # which they are, in words


def choose_series(folder: Path, *, most: int, most_bytes: int) -> Chosen:
    """Returns the slices of the largest series of a folder; where they are too many, some of them, evenly spaced.

    Args:
        folder: Holds the series.
        most: How many images may be sent.
        most_bytes: How large their files may be together; a file counts once for each of its frames.

    Raises:
        InvalidInput: There is no series that makes a volume, or not one of its files is small enough.
    """
    with open_sandbox() as sandbox:
        reader = SeriesReader(sandbox)
        groups = _scan(reader, folder).by_series()
        slices = reader.arrange(groups[0]).slices
    paths = {scan.slices[0].file_number: scan.path for scan in groups[0]}
    every = [(paths[each.file_number], each.frame_number) for each in slices]
    images = spread(every, [path.stat().st_size for path, _ in every], most=most, most_bytes=most_bytes)
    which = f" of the largest of {len(groups)} series" if len(groups) > 1 else ""
    spaced = ", evenly spaced" if len(images) < len(every) else ""
    return Chosen(images, f"{len(images)} of {len(every)} slices{which}{spaced}")


def spread(
    every: Sequence[tuple[Path, int]], sizes: Sequence[int], *, most: int, most_bytes: int
) -> tuple[tuple[Path, int], ...]:
    """Returns as many as fit, evenly spaced.

    Raises:
        InvalidInput: Not one fits.
    """
    for count in range(min(len(every), most), 0, -1):
        places = [round((at + 0.5) * len(every) / count - 0.5) for at in range(count)]
        if sum(sizes[place] for place in places) <= most_bytes:
            return tuple(every[place] for place in places)
    raise InvalidInput(f"expected files of at most {most_bytes} bytes, got larger ones")


def _scan(reader: SeriesReader, folder: Path) -> Folder:
    files = list(find_files((folder,)))
    screen = progress_console()
    found = reader.scan(track(files, "reading headers", console=screen, transient=True, disable=not screen.is_terminal))
    if not found.scans:
        reasons = "; ".join(found.refused) or "no files"
        raise InvalidInput(f"expected a folder with grey DICOM images, got none ({reasons})")
    return found


def _facts(scans: Sequence[Scan]) -> dict[str, Any]:
    """What all files of a series state alike; what differs is of single images."""
    all_facts = [dataclasses.asdict(scan.facts) for scan in scans]
    return {name: value for name, value in all_facts[0].items() if all(facts[name] == value for facts in all_facts)}


def _described(reader: SeriesReader, scans: Sequence[Scan]) -> dict[str, Any]:
    columns = (TextColumn("reading voxels"), BarColumn(), MofNCompleteColumn())
    try:
        screen = progress_console()
        with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as progress:
            task = progress.add_task("", total=None)
            return describe(
                reader.volume(scans, lambda done, total: progress.update(task, completed=done, total=total))
            )
    except NearcaseError as error:
        return {"refused": str(error)}
