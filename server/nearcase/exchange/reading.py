"""Reads an export that nobody vouches for: hashes first, then row groups in a child process with limits."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nearcase.clock import SystemClock
from nearcase.errors import InvalidInput
from nearcase.exchange.manifest import NAME, Manifest, Part, read_manifest
from nearcase.exchange.messages import cases_from_proto
from nearcase.exchange.row_groups import MAX_GROUP_BYTES, read_group_job
from nearcase.intake.sandbox import Sandbox
from nearcase.v1.library_pb2 import ExportedCases

if TYPE_CHECKING:
    from nearcase.transfers import StoredCase

_WALL_S = 120.0
_CPU_S = 60


@dataclass(frozen=True, slots=True)
class Rows:
    """Some cases of one part, checked."""

    part: str
    first_row: int  # within the part, from 1
    cases: tuple[StoredCase, ...]


class ExportReader:
    """A whole export, from which checked cases are read.

    Args:
        folder: With export.json and its parts.
        sandbox: Where parts are read.
    """

    def __init__(self, folder: Path, sandbox: Sandbox) -> None:
        self._folder, self._sandbox = folder, sandbox
        self.manifest = _whole(folder)

    def rows(self, *, from_part: str = "") -> Iterator[Rows]:
        """Yields the cases part by part; each part's hash is checked before its first.

        Args:
            from_part: Leaves out the parts before this one.

        Raises:
            InvalidInput: A part is not as it was written, or a row in it can not be one of a library; the message has
                the part and the row, and what was yielded before is good.
        """
        for part in _from(self.manifest, from_part):
            with _told(part.name):
                path = _checked(self._folder, part)
                yield from self._of_part(part, path)

    def _of_part(self, part: Part, path: Path) -> Iterator[Rows]:
        options = {"path": os.path.abspath(path), "dimension": self.manifest.dimension, "group": None}
        options["now_s"] = SystemClock().now_s()
        described, _ = self._sandbox.run(b"", options)
        group_rows = described["group_rows"]
        if sum(group_rows) != part.row_count:
            raise InvalidInput(f"expected {part.row_count} rows, got {sum(group_rows)}", reason="EXPORT_INVALID")
        row = 1
        for group in range(len(group_rows)):
            _, messages = self._sandbox.run(b"", options | {"group": group})
            for message in messages:
                cases = cases_from_proto(ExportedCases.FromString(message))
                yield Rows(part.name, row, cases)
                row += len(cases)


@contextmanager
def open_export(folder: Path) -> Iterator[ExportReader]:
    """The export in a folder; the child that reads it ends with the block.

    Raises:
        InvalidInput: The folder holds no whole export.
    """
    limits = {"wall_s": _WALL_S, "result_bytes": 2 * MAX_GROUP_BYTES}
    with Sandbox(read_group_job, workers=1, cpu_s=_CPU_S, **limits) as sandbox:  # type: ignore[arg-type]
        yield ExportReader(folder, sandbox)


def _whole(folder: Path) -> Manifest:
    manifest = read_manifest(folder)
    if manifest is None:
        raise InvalidInput(
            f"expected a folder with {NAME}, got one without; an export is whole when its command has ended",
            reason="EXPORT_INVALID",
        )
    return manifest


def _from(manifest: Manifest, from_part: str) -> tuple[Part, ...]:
    names = [part.name for part in manifest.parts]
    if from_part and from_part not in names:
        raise InvalidInput("expected the name of a part of this export, part-00000.parquet for example")
    return manifest.parts[names.index(from_part) :] if from_part else manifest.parts


def _checked(folder: Path, part: Part) -> Path:
    path = folder / part.name
    try:
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode) or found.st_size != part.size_bytes:
            raise InvalidInput(f"expected a file of {part.size_bytes} bytes, got another", reason="EXPORT_INVALID")
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InvalidInput(f"it can not be read: {error.strerror}", reason="EXPORT_INVALID") from error
    if digest != part.sha256:
        raise InvalidInput("its sha256 is not the one in export.json", reason="EXPORT_INVALID")
    return path


@contextmanager
def _told(part: str) -> Iterator[None]:
    """Names the part in whatever is refused of it."""
    try:
        yield
    except InvalidInput as error:
        raise InvalidInput(f"{part}: {error}", reason=error.reason, field=error.field) from None
