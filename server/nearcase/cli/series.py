"""Whole series for an encoder of volumes: the files below folders, grouped by series, one packed file for each."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.progress import track

from nearcase.cli.files import find_files
from nearcase.cli.labels import LabelTable
from nearcase.cli.options import progress_console, shown
from nearcase.cli.query import Asked
from nearcase.client import AddItem, Example
from nearcase.errors import InvalidInput
from nearcase.intake.archive import pack_series
from nearcase.intake.nifti import is_nifti
from nearcase.intake.series_reader import SeriesReader, open_sandbox
from nearcase.types import CaseFacts

_START_BYTES = 4096


@dataclass(frozen=True, slots=True)
class SeriesFiles:
    """The files of one series."""

    request_id: str  # the same in every run
    files: tuple[Path, ...]

    @property
    def name(self) -> Path:
        """What people call it: the file, or the folder that holds all files."""
        folders = {file.parent for file in self.files}
        return self.files[0] if len(self.files) == 1 or len(folders) > 1 else folders.pop()

    def read(self) -> bytes:
        """Returns one file for the whole series: as it is, or packed.

        Raises:
            OSError: A file can not be read.
        """
        if len(self.files) == 1:
            return self.files[0].read_bytes()
        return pack_series([file.read_bytes() for file in self.files])

    def item(self, table: LabelTable, source: str) -> AddItem:
        """Returns the item to add; a row of the table may name the folder or any file."""
        row = next((row for path in (self.name, *self.files) if (row := table.row(path))), None)
        if row is None:
            return AddItem(self.request_id, self.read(), source=source)
        return AddItem(self.request_id, self.read(), row.labels, row.facts, row.source or source)


def group_series(files: list[Path]) -> tuple[list[SeriesFiles], dict[str, int]]:
    """Returns the series among files, and for each reason how many files are of none.

    A NIfTI file is a series by itself, and so is a zip that was packed before.
    """
    alone = [file for file in files if _is_whole(file)]
    rest = [file for file in files if file not in set(alone)]
    screen = progress_console()
    with open_sandbox() as sandbox:
        tracked = track(rest, "reading headers", console=screen, transient=True, disable=not screen.is_terminal)
        found = SeriesReader(sandbox).scan(tracked)
    refused = dict(found.refused)
    series = [SeriesFiles(_id(str(file.absolute())), (file,)) for file in alone]
    for scans in found.by_series():
        uid = scans[0].slices[0].series_uid
        if uid:
            series.append(SeriesFiles(_id(f"series {uid}"), tuple(sorted(scan.path for scan in scans))))
        else:
            refused["expected a Series Instance UID, found none"] = len(scans)
    return series, refused


def pack_folder(folder: Path, files: list[Path]) -> bytes:
    """Returns the one series of a folder as one file.

    Raises:
        InvalidInput: There is none, or more than one.
    """
    series, refused = group_series(files)
    if len(series) != 1:
        reasons = f" ({'; '.join(refused)})" if refused and not series else ""
        raise InvalidInput(f"expected one series in {folder.name}, got {len(series)}{reasons}")
    return series[0].read()


def read_whole(paths: tuple[Path, ...], facts: CaseFacts) -> Asked:
    """Returns what is asked about: one series, whole, for an encoder of volumes.

    Raises:
        InvalidInput: Not exactly one file or folder is named, or a folder holds not exactly one series.
    """
    if len(paths) != 1:
        raise InvalidInput(f"expected one file or folder of a series, got {len(paths)}")
    path = paths[0]
    data = pack_folder(path, list(find_files((path,)))) if path.is_dir() else path.read_bytes()
    return Asked((Example(image=data, facts=facts),), shown(Path(path.name)), is_series=False)


def read_items(series: list[SeriesFiles], table: LabelTable, source: str, refused: dict[str, int]) -> Iterator[AddItem]:
    """Yields the items one by one, so that no more than a few series are in memory; adds to `refused`."""
    for each in series:
        try:
            item = each.item(table, source)
        except OSError as error:
            reason = f"can not be read: {error.strerror}"
            refused[reason] = refused.get(reason, 0) + len(each.files)
            continue
        yield item


def _is_whole(file: Path) -> bool:
    with file.open("rb") as stream:
        start = stream.read(_START_BYTES)
    return start.startswith(b"PK\x03\x04") or is_nifti(start)


def _id(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:32]
