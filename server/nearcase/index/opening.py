"""The one place that opens a library; later tiers are chosen here."""

from __future__ import annotations

import asyncio
from pathlib import Path

from nearcase.index.edge import EdgeIndex
from nearcase.index.manifest import claim


async def open_index(folder: Path, *, dimension: int, encoder_identity: str) -> EdgeIndex:
    """Returns the library in the folder, which is made when it is absent or empty.

    Args:
        folder: Where the library lives; one process has it open at a time.
        dimension: Length of the embeddings.
        encoder_identity: Everything that makes embeddings comparable, as one line: encoder, hash, recipe, precision.

    Raises:
        Unready: Another encoder wrote it, another process has it open, it is damaged, or the disk refuses.
    """
    await asyncio.to_thread(claim, folder, dimension=dimension, encoder_identity=encoder_identity)
    return await EdgeIndex.open(folder, dimension)
