"""What a library folder says of itself: library.json, written once, before anything else is in the folder.

{"format_version": 1, "encoder_identity": "...", "dimension": 1280, "created": "2026-11-23T09:00:00+00:00",
 "pseudonym_check": "..."}
"""

from __future__ import annotations

import json
import os
import tempfile
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from nearcase.errors import Unready

FORMAT_VERSION = 1
"""Raised when an older nearcase could misread a folder that this one wrote."""

NAME = "library.json"


@dataclass(frozen=True, slots=True)
class Manifest:
    """Who can read a library: embeddings of two encoders can not be compared, nor pseudonyms of two keys."""

    format_version: int
    encoder_identity: str
    dimension: int
    created: str  # ISO 8601, UTC
    pseudonym_check: str = ""  # knows the key of a de-identified library again; "" in one that is as stated


def claim(folder: Path, *, dimension: int, encoder_identity: str, pseudonym_check: str = "") -> Manifest:
    """Returns the manifest of the folder, which is made if absent and becomes ours if empty.

    Of two processes that claim an empty folder at once, one writes the manifest and both compare with it.

    Raises:
        Unready: The library is of another encoder, dimension, format or pseudonym key, the folder holds other things,
            or the disk refuses.
    """
    created = datetime.now(UTC).isoformat(timespec="seconds")
    ours = Manifest(FORMAT_VERSION, encoder_identity, dimension, created, pseudonym_check)
    try:
        manifest = _read(folder) or _write(folder, ours)
    except OSError as error:
        raise Unready(f"The library in {folder} can not be used: {error.strerror or type(error).__name__}.") from error
    _compare(folder, manifest, ours)
    return manifest


def read_manifest(folder: Path) -> Manifest | None:
    """Returns what a library folder says of itself; None where it says nothing.

    Raises:
        Unready: It is damaged, or of another format.
    """
    return _read(folder)


def _read(folder: Path) -> Manifest | None:
    try:
        text = (folder / NAME).read_bytes()
    except FileNotFoundError:
        return None
    try:
        stated = json.loads(text)
        version = int(stated["format_version"])
        if version != FORMAT_VERSION:
            raise Unready(
                f"Expected a library of format {FORMAT_VERSION} in {folder}, got format {version}; "
                "use the nearcase that wrote it, or a newer one."
            )
        words = (str(stated["encoder_identity"]), int(stated["dimension"]), str(stated["created"]))
        return Manifest(version, *words, str(stated.get("pseudonym_check", "")))
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise Unready(f"The file {NAME} in {folder} is damaged; restore it from a backup.") from error


def _write(folder: Path, manifest: Manifest) -> Manifest:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # what is in it is about patients
    if foreign := [entry for entry in os.listdir(folder) if not entry.startswith(f"{NAME}.")]:
        if (folder / NAME).exists():
            return _again(folder)
        raise Unready(f"Expected an empty folder or a library in {folder}, got {len(foreign)} other entries.")
    if not _create(folder, json.dumps(asdict(manifest), indent=2) + "\n"):
        return _again(folder)
    return manifest


def _again(folder: Path) -> Manifest:
    """Reads what another process wrote between two of our steps."""
    manifest = _read(folder)
    if manifest is None:
        raise Unready(f"The file {NAME} in {folder} appeared and went; is another program using this folder?")
    return manifest


def _create(folder: Path, text: str) -> bool:
    """Writes the whole file, on the disk, or nothing; returns False when there is one already."""
    descriptor, temporary = tempfile.mkstemp(prefix=f"{NAME}.", dir=folder)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.link(temporary, folder / NAME)  # unlike a rename, it does not replace
    except FileExistsError:
        return False
    finally:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
    for place in (folder, folder.parent):
        descriptor = os.open(place, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
    return True


def _compare(folder: Path, stored: Manifest, ours: Manifest) -> None:
    if (stored.encoder_identity, stored.dimension) != (ours.encoder_identity, ours.dimension):
        raise Unready(
            f"The library in {folder} was written by encoder {stored.encoder_identity} ({stored.dimension} numbers), "
            f"and this is encoder {ours.encoder_identity} ({ours.dimension}): their embeddings can not be compared. "
            "Start with that encoder, or choose another --data folder.",
            reason="ENCODER_MISMATCH",
        )
    if stored.pseudonym_check != ours.pseudonym_check:
        raise Unready(
            f"The library in {folder} {_difference(stored, ours)}. Start with the deidentify and pseudonym_key that it "
            "was made with, or choose another --data folder.",
            reason="DEIDENTIFICATION_MISMATCH",
        )


def _difference(stored: Manifest, ours: Manifest) -> str:
    if not ours.pseudonym_check:
        return "is de-identified, and this server has deidentify off"
    if not stored.pseudonym_check:
        return "is not de-identified, and this server has deidentify on"
    return "is de-identified with another pseudonym key than this server's"
