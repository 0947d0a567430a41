"""Where the images of a set lie: found by the end of their path, since providers ship them in many folders."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath

from nearcase.errors import InvalidInput

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".dcm"})


def walk(folder: Path, suffixes: Iterable[str] = SUFFIXES) -> Iterator[PurePosixPath]:
    """Yields the files below a folder, sorted, relative to it; hidden files and macOS's archive leftovers are not."""
    wanted = frozenset(suffixes)
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__MACOSX")))
        below = PurePosixPath(Path(parent).relative_to(folder).as_posix())
        for name in sorted(names):
            if not name.startswith(".") and PurePosixPath(name).suffix.lower() in wanted:
                yield below / name


def located(folder: Path, depth: int) -> Mapping[str, str]:
    """Returns the last `depth` parts of each image's path to the whole path below the folder.

    Raises:
        InvalidInput: There are no images, or two end alike.
    """
    found: dict[str, str] = {}
    for path in walk(folder):
        key = ending(path.as_posix(), depth)
        if key in found:
            raise InvalidInput(f"expected each image once in {folder.name}, found {found[key]} and {path.as_posix()}")
        found[key] = path.as_posix()
    if not found:
        raise InvalidInput(f"expected images ({', '.join(sorted(SUFFIXES))}) in {folder.name}, found none")
    return found


def ending(path: str, depth: int) -> str:
    """Returns the last parts of a path."""
    return "/".join(PurePosixPath(path).parts[-depth:])
