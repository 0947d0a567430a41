"""Fills a data folder as the server keeps it: `python -m vectors.load DATA ENCODER MADE`, in a process of its own."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from nearcase.encode.card import read_card
from nearcase.index.base import Index, Point
from nearcase.index.opening import open_index
from nearcase.retrieve.cases import case_id_of, to_payload
from nearcase.types import Case, CaseFacts
from vectors.made import MODALITIES, Made, read

BATCH = 500
THUMBNAIL_BYTES = 2500
"""What the thumbnail of a film takes."""

SETTLED_S = 30.0
"""Small parts are merged when nothing was written for 20 s."""

SETTLE_LIMIT_S = 3600.0


def case_of(made: Made, row: int, thumbnail_bytes: int = THUMBNAIL_BYTES) -> Case:
    """The case of one row; its Study Instance UID ends in the row's number."""
    facts = CaseFacts(
        patient_id=f"P{row}",
        study_uid=f"1.2.826.0.1.3680043.10.1.{row}",
        series_uid=f"1.2.826.0.1.3680043.10.1.{row}.1",
        instance_uid=f"1.2.826.0.1.3680043.10.1.{row}.1.1",
        modality=MODALITIES[made.modality[row]],
        sex="MF"[row % 2],
        age_years=float(made.age_years[row]),
        manufacturer="made",
        device_model=f"D{made.device[row]}",
        study_date="20260101",
    )
    picture = np.random.default_rng(row).bytes(thumbnail_bytes)
    digest = f"{row:064x}"
    return Case(case_id_of(facts, digest, 1), facts, {"outcome": str(row % 2)}, "made", (), 1, 1, digest, 1.0, picture)


def row_of(study_uid: str) -> int:
    """The inverse of `case_of`."""
    return int(study_uid.rpartition(".")[2])


def point_of(made: Made, row: int, thumbnail_bytes: int = THUMBNAIL_BYTES) -> Point:
    """One row as it is stored."""
    case = case_of(made, row, thumbnail_bytes)
    return Point(case.case_id, np.array(made.vectors[row]), to_payload(case))


async def load(
    data: Path,
    encoder: Path,
    made: Made,
    *,
    thumbnail_bytes: int = THUMBNAIL_BYTES,
    is_settled: bool = True,
    after_block: Callable[[int], None] = lambda count: None,
) -> None:
    """Stores all rows and, where asked, waits until nothing is being built any more."""
    card = read_card(encoder)
    index = await open_index(data / "library", dimension=card.dimension, encoder_identity=card.identity)
    try:
        for start in range(0, len(made.vectors), BATCH):
            rows = range(start, min(start + BATCH, len(made.vectors)))
            await index.upsert([point_of(made, row, thumbnail_bytes) for row in rows])
            after_block(rows.stop)
        if is_settled:
            await settled(index)
    finally:
        await index.close()


async def settled(index: Index) -> None:
    """Returns when nothing was being built for a while."""
    end_s = time.monotonic() + SETTLE_LIMIT_S
    quiet_since_s = time.monotonic()
    while time.monotonic() - quiet_since_s < SETTLED_S:
        await asyncio.sleep(0.25)
        if (await index.state()).is_building:
            quiet_since_s = time.monotonic()
        if time.monotonic() > end_s:
            raise SystemExit("the index went on building for an hour")


if __name__ == "__main__":
    asyncio.run(load(Path(sys.argv[1]), Path(sys.argv[2]), read(Path(sys.argv[3]))))
