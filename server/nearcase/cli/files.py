"""The files that a command line names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path


def find_files(paths: tuple[Path, ...]) -> Iterator[Path]:
    """Yields files in a stable order; hidden files below folders, and DICOMDIR, are left out."""
    for path in paths:
        if path.is_file():
            yield path
            continue
        for file in sorted(path.rglob("*")):
            hidden = any(part.startswith(".") for part in file.relative_to(path).parts)
            if file.is_file() and not hidden and file.name != "DICOMDIR":
                yield file
