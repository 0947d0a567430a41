"""The files of a trail, oldest first: NUMBER-DATE.jsonl, numbered from 1 without gaps."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

_NAME = re.compile(r"(\d{8})-(\d{8})\.jsonl")
MOST_LINE = 4 * 2**20
"""Bytes of one line; a record of 1000 hits takes 40 kB."""


@dataclass(frozen=True, slots=True)
class TrailFile:
    """One file."""

    number: int
    day: str  # YYYYMMDD, UTC, when it was begun
    path: Path


def day_of(at_s: float) -> str:
    """Returns the day that a file of that moment has in its name."""
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y%m%d")


def file_of(folder: Path, number: int, day: str) -> TrailFile:
    """Returns the file of a number."""
    return TrailFile(number, day, folder / f"{number:08d}-{day}.jsonl")


def files_in(folder: Path) -> list[TrailFile]:
    """Returns the files that are there, oldest first; OSError where the folder can not be read."""
    matches = ((_NAME.fullmatch(path.name), path) for path in folder.iterdir())
    return sorted((TrailFile(int(found[1]), found[2], path) for found, path in matches if found), key=_number)


def lines_in(path: Path, start: int = 0) -> Iterator[tuple[int, bytes, bool]]:
    """Yields where each line begins, the line without its end, and whether it has one; longer ones come in pieces."""
    with path.open("rb") as file:
        file.seek(start)
        while line := file.readline(MOST_LINE):
            yield start, line.removesuffix(b"\n"), line.endswith(b"\n")
            start += len(line)


def _number(file: TrailFile) -> int:
    return file.number
