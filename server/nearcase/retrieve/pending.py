"""An image that waits for the library's writer, and what becomes of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING

from nearcase.errors import NearcaseError

if TYPE_CHECKING:
    from nearcase.retrieve.annotations import Annotations
    from nearcase.types import Case, Embedding


class AddOutcome(Enum):
    """What became of an added image."""

    ADDED = "added"
    UNCHANGED = "unchanged"
    REPLACED = "replaced"


@dataclass(frozen=True, slots=True)
class Pending:
    """One image, and who waits for it."""

    case: Case  # as its file states it
    given: Annotations
    vector: Embedding
    changed_by: str
    done: asyncio.Future[AddOutcome]


def outcome_of(case: Case, stored: Case | None) -> AddOutcome:
    """Returns what storing a case does to the one that is there; its thumbnail and time of adding do not count."""
    if stored is None:
        return AddOutcome.ADDED
    same = replace(stored, added_at_s=case.added_at_s, thumbnail_jpeg=case.thumbnail_jpeg) == case
    return AddOutcome.UNCHANGED if same else AddOutcome.REPLACED


def fail(batch: Sequence[Pending], error: NearcaseError) -> None:
    """Tells those who still wait."""
    for pending in batch:
        if not pending.done.done():
            pending.done.set_exception(error)
