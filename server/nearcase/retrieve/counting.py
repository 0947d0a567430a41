"""What a library holds, in numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nearcase.index.base import Index
    from nearcase.index.filters import Filter

COUNTED_FIELDS = ("modality", "body_part", "sex", "manufacturer", "source", "flags")

EVERY = 1_000_000
"""Values that are counted at most."""


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
    patients = await index.facet("patient_key", limit=EVERY)
    return Statistics(await index.count(), len(patients), counts | labels)


async def values_of(index: Index, label: str, where: Filter) -> dict[str, int]:
    """Returns how many of the cases that match have each value of a label, in the order of the values."""
    counts = await index.facet("labels", where=where, limit=EVERY)
    pairs = (pair.partition("=") for pair in counts)
    return {value: counts[f"{label}={value}"] for value in sorted(value for name, _, value in pairs if name == label)}
