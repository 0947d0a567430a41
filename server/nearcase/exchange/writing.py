"""Writes an export: whole parts, each on the disk before it is named, so that a second call goes on after the last."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from nearcase.errors import InvalidInput, Unready
from nearcase.exchange.columns import schema_of, to_table
from nearcase.exchange.manifest import NAME, PARTIAL, Manifest, Part, read_manifest, sync_folder, write_manifest
from nearcase.transfers import LibraryIdentity, StoredCase

ROWS_PER_GROUP = 512
"""Held in memory at once: at 1280 numbers and a thumbnail of 4 KiB about 5 MB."""

ROWS_PER_PART = 16_384
COMPRESSION = "zstd"


class ExportWriter:
    """An export on its way, in a folder that one process at a time writes.

    Args:
        folder: Locked by `export_folder`.
        manifest: What was written so far.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self._folder, self.manifest = folder, manifest

    @property
    def after_case_id(self) -> str:
        """The case that the next part goes on after; "" at the start."""
        return self.manifest.parts[-1].last_case_id if self.manifest.parts else ""

    def write(self, cases: Iterable[StoredCase], *, rows_per_part: int = ROWS_PER_PART) -> Iterator[int]:
        """Writes the cases as parts, and yields how many each step wrote.

        Raises:
            Unready: The disk refuses; whole parts stay, and a later call goes on after them.
        """
        remaining = iter(cases)
        first = next(remaining, None)
        while first is not None:
            try:
                part = _OpenPart(self._folder, len(self.manifest.parts), self.manifest.dimension)
                try:
                    first = yield from part.fill(first, remaining, rows_per_part)
                    self._keep(part.finish())
                finally:
                    part.discard()
            except (OSError, pa.ArrowException) as error:
                reason = getattr(error, "strerror", None) or type(error).__name__
                raise Unready(f"the part can not be written: {reason}", reason="DISK") from error

    def finish(self, snapshot_at_end: str) -> Manifest:
        """Makes the export whole and returns what it says of itself."""
        whole = replace(self.manifest, snapshot_at_end=snapshot_at_end)
        write_manifest(self._folder, whole)
        (self._folder / PARTIAL).unlink(missing_ok=True)
        sync_folder(self._folder)
        self.manifest = whole
        return whole

    def _keep(self, part: Part) -> None:
        self.manifest = replace(self.manifest, parts=(*self.manifest.parts, part))
        write_manifest(self._folder, self.manifest, PARTIAL)


class _OpenPart:
    """One part under its temporary name."""

    def __init__(self, folder: Path, number: int, dimension: int) -> None:
        self._path, self._dimension = folder / f"part-{number:05}.parquet", dimension
        self._temporary = folder / f"{self._path.name}.partial"
        self._first, self._last, self._rows = "", "", 0
        self._file = open(self._temporary, "wb+", opener=_private)  # noqa: SIM115 - closed by discard
        # Dictionaries pay for facts, which repeat; vectors and pictures do not.
        plain = {"compression": COMPRESSION, "use_dictionary": [*_repeating(dimension)], "write_statistics": False}
        self._writer = pq.ParquetWriter(self._file, schema_of(dimension), **plain)

    def fill(self, first: StoredCase, more: Iterator[StoredCase], rows: int) -> Generator[int, None, StoredCase | None]:
        """Writes up to `rows` cases; its value is the case that the next part begins with."""
        group, following = [first], next(more, None)
        while following is not None and self._rows + len(group) < rows:
            if len(group) == ROWS_PER_GROUP:
                yield self._write(group)
                group = []
            group.append(following)
            following = next(more, None)
        yield self._write(group)
        return following

    def finish(self) -> Part:
        """Closes, flushes to the disk, and gives the part its name."""
        self._writer.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.seek(0)
        digest = hashlib.file_digest(self._file, "sha256").hexdigest()
        size_bytes = os.fstat(self._file.fileno()).st_size
        self._temporary.replace(self._path)
        sync_folder(self._path.parent)
        return Part(self._path.name, self._rows, size_bytes, digest, self._first, self._last)

    def discard(self) -> None:
        """Lets go of the file, and removes it where it was not finished."""
        with suppress(OSError, ValueError):  # of a writer that failed, nothing is wanted any more
            self._writer.close()
        with suppress(OSError):
            self._file.close()
        self._temporary.unlink(missing_ok=True)

    def _write(self, group: list[StoredCase]) -> int:
        self._writer.write_table(to_table(group, self._dimension), row_group_size=ROWS_PER_GROUP)
        self._first = self._first or group[0].case.case_id
        self._last = group[-1].case.case_id
        self._rows += len(group)
        return len(group)


@contextmanager
def export_folder(
    folder: Path, identity: LibraryIdentity, where: str, *, now: str, version: str
) -> Iterator[ExportWriter]:
    """The folder to export to, made if it is absent, locked, with what an earlier call wrote.

    Raises:
        InvalidInput: It holds a whole export, another export, or other things.
        Unready: Another process exports to it now, or the disk refuses.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # what comes into it is about patients
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise Unready(f"the folder can not be used: {error.strerror}", reason="DISK") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield ExportWriter(folder, _begun(folder, identity, where, now, version))
    except BlockingIOError:
        raise Unready("another process exports to this folder now", reason="EXPORT_IN_USE") from None
    finally:
        os.close(descriptor)


def _begun(folder: Path, identity: LibraryIdentity, where: str, now: str, version: str) -> Manifest:
    if (folder / NAME).exists():
        raise InvalidInput(f"expected a folder without an export, got one with {NAME}; name another folder")
    manifest = read_manifest(folder, PARTIAL)
    if manifest is None:
        return _first(folder, identity, where, now, version)
    kept = (manifest.encoder_identity, manifest.dimension, manifest.pseudonym_check, manifest.filter)
    if kept != (identity.encoder_identity, identity.dimension, identity.pseudonym_check, where):
        raise InvalidInput("this folder holds the beginning of another export; name another folder, or empty it")
    named = {part.name: part.size_bytes for part in manifest.parts}
    for path in folder.glob("part-*"):
        if path.name not in named:
            path.unlink()  # it was being written, or not named yet, when the last call ended
    for name, size_bytes in named.items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != size_bytes:
            raise InvalidInput(f"{name} is not as it was written; empty the folder", reason="EXPORT_INVALID")
    return manifest


def _first(folder: Path, identity: LibraryIdentity, where: str, now: str, version: str) -> Manifest:
    foreign = [name for name in os.listdir(folder) if name != f"{PARTIAL}.writing"]
    if foreign:
        raise InvalidInput(f"expected an empty folder, got one with {len(foreign)} entries")
    words = (identity.encoder_identity, identity.dimension, identity.pseudonym_check)
    manifest = Manifest(*words, where, identity.snapshot, "", now, version)
    write_manifest(folder, manifest, PARTIAL)
    return manifest


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _repeating(dimension: int) -> Iterator[str]:
    unique = ("case_id", "vector", "thumbnail_jpeg", "content_sha256", "added_at_s")
    return (name for name in schema_of(dimension).names if name not in unique)
