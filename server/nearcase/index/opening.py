"""The one place that opens a library; later tiers are chosen here."""

from __future__ import annotations

import asyncio
from pathlib import Path

from nearcase.index.edge import EdgeIndex
from nearcase.index.manifest import claim


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
