"""export.json: what a folder of exported cases says of itself; `export.json.partial` while it is being written."""

from __future__ import annotations

import json
import os
import re
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from nearcase.errors import InvalidInput, Unready

FORMAT = "nearcase-export"
FORMAT_VERSION = 1
"""Raised when an older nearcase could misread an export that this one wrote."""

NAME = "export.json"
PARTIAL = "export.json.partial"
MAX_BYTES = 64 * 2**20
MAX_DIMENSION = 65_536
_PART = re.compile(r"part-[0-9]{5}\.parquet")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Part:
    """One file of cases."""

    name: str
    row_count: int
    size_bytes: int
    sha256: str  # of the file, hexadecimal
    first_case_id: str
    last_case_id: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """Who can read the export, what it is of, and its parts in the order of case ids."""

    encoder_identity: str
    dimension: int
    pseudonym_check: str
    filter: str  # in the filter language; "" is all
    snapshot_at_start: str
    snapshot_at_end: str  # "" until the export is whole
    created: str  # ISO 8601, UTC
    nearcase_version: str
    parts: tuple[Part, ...] = ()

    @property
    def case_count(self) -> int:
        """Cases in all parts."""
        return sum(part.row_count for part in self.parts)

    @property
    def changed_meanwhile(self) -> bool:
        """Whether the library was another at the end, so that cases that came meanwhile may be absent."""
        return self.snapshot_at_start != self.snapshot_at_end or not self.snapshot_at_end


def read_manifest(folder: Path, name: str = NAME) -> Manifest | None:
    """Returns what the folder says of itself; None where the file is absent.

    Raises:
        InvalidInput: The file is no such manifest, or one of another format version.
        Unready: The disk refuses.
    """
    try:
        with (folder / name).open("rb") as file:
            text = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Unready(f"{name} can not be read: {error.strerror}", reason="DISK") from error
    try:
        stated = json.loads(text) if len(text) <= MAX_BYTES else None
    except (ValueError, RecursionError):
        stated = None
    if not isinstance(stated, dict) or stated.get("format") != FORMAT:
        raise _refusal(f'expected "format": "{FORMAT}" in {name}, got a file of something else')
    if stated.get("format_version") != FORMAT_VERSION:
        raise _refusal(
            f"expected format version {FORMAT_VERSION} in {name}; use the nearcase that wrote it, or a newer"
        )
    return _manifest(stated, name)


def write_manifest(folder: Path, manifest: Manifest, name: str = NAME) -> None:
    """Replaces the file whole, on the disk, or not at all.

    Raises:
        Unready: The disk refuses.
    """
    body = {"format": FORMAT, "format_version": FORMAT_VERSION} | asdict(manifest)
    body |= {"case_count": manifest.case_count, "changed_meanwhile": manifest.changed_meanwhile}
    temporary = folder / f"{name}.writing"
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(json.dumps(body, indent=2) + "\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(folder / name)
        sync_folder(folder)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise Unready(f"{name} can not be written: {error.strerror}", reason="DISK") from error


def sync_folder(folder: Path) -> None:
    """Returns when the names in the folder are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _manifest(stated: dict[str, Any], name: str) -> Manifest:
    parts = stated.get("parts")
    if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
        raise _refusal(f"expected a list of parts in {name}")
    words = {field.name: stated.get(field.name) for field in fields(Manifest) if field.name != "parts"}
    for key, value in words.items():
        if not isinstance(value, int if key == "dimension" else str) or isinstance(value, bool):
            raise _refusal(f"expected {key} in {name} as docs/export.md says, got another value")
    manifest = Manifest(**words, parts=tuple(_part(part, name) for part in parts))  # type: ignore[arg-type]
    if not 1 <= manifest.dimension <= MAX_DIMENSION:
        raise _refusal(f"expected a dimension from 1 to {MAX_DIMENSION} in {name}")
    if len({part.name for part in manifest.parts}) != len(parts):
        raise _refusal(f"expected each part once in {name}")
    if stated.get("case_count") != manifest.case_count:
        raise _refusal(f"expected case_count in {name} to be the sum of its parts, {manifest.case_count}")
    return manifest


def _part(stated: dict[str, Any], name: str) -> Part:
    """The name of a part is a plain file name, so that no export reads a file outside its folder."""
    part = Part(**{field.name: stated.get(field.name) for field in fields(Part)})  # type: ignore[arg-type]
    texts = (part.name, part.sha256, part.first_case_id, part.last_case_id)
    counts = (part.row_count, part.size_bytes)
    if not all(isinstance(text, str) for text in texts) or not all(type(count) is int for count in counts):
        raise _refusal(f"expected parts in {name} as docs/export.md says, got other values")
    if not _PART.fullmatch(part.name) or not _SHA256.fullmatch(part.sha256) or min(counts) < 0:
        raise _refusal(f"expected parts named part-NNNNN.parquet with a sha256 and sizes in {name}")
    return part


def _refusal(message: str) -> InvalidInput:
    return InvalidInput(message, reason="EXPORT_INVALID")
