"""What travels between libraries: cases with their embeddings, and what became of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nearcase.types import Case, Embedding


@dataclass(frozen=True, slots=True)
class StoredCase:
    """A case with its embedding, as it travels between libraries."""

    case: Case
    vector: Embedding


@dataclass(frozen=True, slots=True)
class LibraryIdentity:
    """What a library's cases need to be read again, and how many there are."""

    encoder_identity: str  # embeddings of another can not be compared
    dimension: int
    pseudonym_check: str  # knows the key of a de-identified library again; "" in one that is as stated
    snapshot: str  # names the state of the library
    case_count: int  # that the filter keeps


@dataclass(frozen=True, slots=True)
class ImportCounts:
    """What became of imported cases."""

    added: int = 0
    unchanged: int = 0
    replaced: int = 0
    erased: int = 0  # erased here after they were exported: they stay erased

    def __add__(self, other: ImportCounts) -> ImportCounts:
        return ImportCounts(
            self.added + other.added,
            self.unchanged + other.unchanged,
            self.replaced + other.replaced,
            self.erased + other.erased,
        )
