"""What a library holds, in numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nearcase.index.base import Index

COUNTED_FIELDS = ("modality", "body_part", "sex", "manufacturer", "source", "flags")


@dataclass(frozen=True, slots=True)
class Statistics:
    """What the library holds."""

    case_count: int
    patient_count: int
    field_counts: dict[str, dict[str, int]]


async def statistics(index: Index) -> Statistics:
    """Counts the whole index."""
    counts = {field: await index.facet(field) for field in COUNTED_FIELDS}
    labels: dict[str, dict[str, int]] = {}
    for pair, count in (await index.facet("labels", limit=10_000)).items():
        name, value = pair.split("=", 1)
        labels.setdefault(f"label.{name}", {})[value] = count
    patients = await index.facet("patient_key", limit=1_000_000)
    return Statistics(await index.count(), len(patients), counts | labels)
