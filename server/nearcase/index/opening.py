"""The one place that opens a library: in a folder, or on a Qdrant server."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING

from nearcase.errors import Unready
from nearcase.index.edge.index import EdgeIndex
from nearcase.index.lock import FolderLock
from nearcase.index.manifest import claim

if TYPE_CHECKING:
    from nearcase.index.base import Index
    from nearcase.settings import Settings


async def open_tier(settings: Settings, *, dimension: int, encoder_identity: str, pseudonym_check: str = "") -> Index:
    """Returns the library where the setting `index` says; the other arguments are those of `open_index`.

    Raises:
        Unready: As `open_index`; or the Qdrant server is not there, refuses, or has another collection of that name; or
            its client is not installed.
    """
    if settings.index == "edge":
        return await open_index(
            settings.data / "library",
            dimension=dimension,
            encoder_identity=encoder_identity,
            pseudonym_check=pseudonym_check,
        )
    try:  # here, so that servers without it need not install it
        from nearcase.index.qdrant.identity import Identity
        from nearcase.index.qdrant.index import QdrantIndex
    except ModuleNotFoundError as error:
        message = f'setting index is "qdrant" and {error.name} is missing: pip install "nearcase[qdrant]"'
        raise Unready(message, reason="INDEX_CLIENT_ABSENT") from error
    lock = await asyncio.to_thread(_claimed, settings.data)
    try:
        identity = Identity(dimension, encoder_identity, pseudonym_check)
        return await QdrantIndex.reach(settings, identity, let_go=lock.release)
    except BaseException:
        lock.release()
        raise


def _claimed(data: Path) -> FolderLock:
    """Servers share a collection, and never what each of them keeps in its data folder."""
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = FolderLock(data)
        if lock.take(os.getpid()):
            return lock
    except OSError as error:
        raise Unready(f"The data folder {data} can not be used: {error.strerror}.") from error
    message = f"another nearcase process ({lock.owner()}) uses the data folder {data}; stop it or choose another"
    raise Unready(message)


async def open_index(folder: Path, *, dimension: int, encoder_identity: str, pseudonym_check: str = "") -> EdgeIndex:
    """Returns the library in the folder, which is made when it is absent or empty.

    Args:
        folder: Where the library lives; one process has it open at a time.
        dimension: Length of the embeddings.
        encoder_identity: Everything that makes embeddings comparable, as one line: encoder, hash, recipe, precision.
        pseudonym_check: Knows the key of a de-identified library again; "" for one that keeps facts as stated.

    Raises:
        Unready: Another encoder or pseudonym key wrote it, another process has it open, it is damaged, or the disk
            refuses.
    """
    await asyncio.to_thread(
        claim, folder, dimension=dimension, encoder_identity=encoder_identity, pseudonym_check=pseudonym_check
    )
    return await EdgeIndex.open(folder, dimension)
