"""Where a cohort's files lie: a folder, or a folder inside a zip, which is read without being unpacked."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from nearcase.errors import InvalidInput

MAX_BYTES = 512 * 2**20


class Files(Protocol):
    """Gives the bytes of a named file."""

    def read(self, name: str) -> bytes:
        """Returns the file; raises InvalidInput when there is none, or when it lies outside."""
        ...


@dataclass(frozen=True, slots=True)
class Folder:
    """Files below a folder."""

    root: Path

    def read(self, name: str) -> bytes:
        """Returns the file; a name that leads out of the folder is refused."""
        path = (self.root / name).resolve()
        if not path.is_relative_to(self.root.resolve()) or not path.is_file():
            raise InvalidInput(f"expected a file {name!r} in {self.root.name}, found none")
        return path.read_bytes()


@dataclass(frozen=True, slots=True)
class ZipFolder:
    """Files below a folder inside a zip."""

    archive: zipfile.ZipFile = field(repr=False)
    prefix: str = ""

    def read(self, name: str) -> bytes:
        """Returns the file, unless it claims to be larger than MAX_BYTES."""
        try:
            member = self.archive.getinfo(f"{self.prefix}{name}")
        except KeyError:
            raise InvalidInput(f"expected a file {name!r} in the zip, found none") from None
        if member.file_size > MAX_BYTES:
            raise InvalidInput(f"{name!r} has {member.file_size} bytes; at most {MAX_BYTES} are read")
        with self.archive.open(member) as stream:
            return stream.read(MAX_BYTES)


def open_files(path: Path) -> Files:
    """Returns the files below a path, one of whose parts may be a zip: "cohort.zip/images".

    Raises:
        InvalidInput: There is no such folder or zip.
    """
    if path.is_dir():
        return Folder(path)
    for parent in (path, *path.parents):
        if parent.is_file():
            inner = path.relative_to(parent).as_posix()
            return ZipFolder(_open(parent), "" if inner == "." else f"{inner}/")
    raise InvalidInput(f"expected a folder or a zip at {path}, found none")


def _open(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise InvalidInput(f"{path.name} is no zip that can be read: {error}") from error
