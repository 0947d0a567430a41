"""Whether the files of a shard hold the vectors that the engine counts; it loads one that is cut short as if they did.

It fills up a sealed shard with zeros, so that searches leave out points without a word; of another, every search fails.
Runs in the index process; the names and layouts are those of qdrant-edge, and a file that it did not make is not asked.
"""

from __future__ import annotations

import json
from pathlib import Path

_NUMBER_BYTES, _VERSION_BYTES, _HEADER_BYTES = 4, 8, 4


def check_sealed(folder: Path, dimension: int) -> None:
    """Refuses a shard, before the engine loads it, of which vectors that never change are missing.

    Such a segment keeps a version of eight bytes for each point, living or deleted.

    Raises:
        OSError: A file is shorter than its points need, or can not be read.
    """
    for versions in (folder / "segments").glob("*/id_tracker.versions"):
        matrix = versions.parent / "vector_storage" / "matrix.dat"
        if matrix.exists():
            count = versions.stat().st_size // _VERSION_BYTES
            _check_size(matrix, _HEADER_BYTES + count * dimension * _NUMBER_BYTES)


def check_growing(folder: Path, dimension: int) -> None:
    """Refuses a shard, after the engine wrote its log into it, of which vectors of the other segments are missing.

    They are in files of so many vectors each, and how many there are is in status.dat.

    Raises:
        OSError: A file is shorter than its points need, or can not be read.
    """
    for status in (folder / "segments").glob("*/vector_storage/vectors/status.dat"):
        _check_chunks(status.parent, dimension)


def _check_chunks(folder: Path, dimension: int) -> None:
    rest = int.from_bytes((folder / "status.dat").read_bytes()[:8], "little")
    each = json.loads((folder / "config.json").read_bytes())["chunk_size_vectors"]
    number = 0
    while rest > 0:
        _check_size(folder / f"chunk_{number}.mmap", min(rest, each) * dimension * _NUMBER_BYTES)
        rest, number = rest - each, number + 1


def _check_size(file: Path, least_bytes: int) -> None:
    size_bytes = file.stat().st_size
    if size_bytes < least_bytes:
        raise OSError(f"{file.name} is cut short: expected {least_bytes} bytes of vectors, got {size_bytes}")
