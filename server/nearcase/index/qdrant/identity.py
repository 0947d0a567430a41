"""Whose embeddings a collection holds: kept in its metadata, written in the call that makes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nearcase.errors import Unready
from nearcase.index.manifest import FORMAT_VERSION

_PREFIX = "nearcase_"


@dataclass(frozen=True, slots=True)
class Identity:
    """Who can read a collection: embeddings of two encoders can not be compared, nor pseudonyms of two keys."""

    dimension: int
    encoder_identity: str
    pseudonym_check: str = ""  # "" in a library that is as stated

    def as_metadata(self) -> dict[str, Any]:
        """Returns what is written beside the collection."""
        return {
            f"{_PREFIX}format_version": FORMAT_VERSION,
            f"{_PREFIX}dimension": self.dimension,
            f"{_PREFIX}encoder_identity": self.encoder_identity,
            f"{_PREFIX}pseudonym_check": self.pseudonym_check,
        }

    def compare(self, collection: str, metadata: Mapping[str, Any] | None) -> None:
        """Refuses a collection that is not ours to read.

        Raises:
            Unready: Another program, format, encoder or pseudonym key wrote it; or the server keeps no metadata.
        """
        found = metadata or {}
        version = found.get(f"{_PREFIX}format_version")
        if version is None:
            raise Unready(
                f"Expected a free name or a library in the Qdrant collection {collection}, got one without our "
                "metadata: another program made it, or the server is older than 1.16.",
                reason="INDEX_LAYOUT",
            )
        if int(version) != FORMAT_VERSION:
            raise Unready(f"Expected a library of format {FORMAT_VERSION} in {collection}, got format {version}.")
        self._compare_encoder(collection, found)
        self._compare_pseudonyms(collection, str(found.get(f"{_PREFIX}pseudonym_check", "")))

    def _compare_encoder(self, collection: str, found: Mapping[str, Any]) -> None:
        stored = (str(found.get(f"{_PREFIX}encoder_identity")), int(found.get(f"{_PREFIX}dimension", 0)))
        if stored != (self.encoder_identity, self.dimension):
            raise Unready(
                f"The Qdrant collection {collection} was written by encoder {stored[0]} ({stored[1]} numbers), and "
                f"this is encoder {self.encoder_identity} ({self.dimension}): their embeddings can not be compared. "
                "Start with that encoder, or name another qdrant_collection.",
                reason="ENCODER_MISMATCH",
            )

    def _compare_pseudonyms(self, collection: str, stored: str) -> None:
        if stored == self.pseudonym_check:
            return
        if not self.pseudonym_check:
            difference = "is de-identified, and this server has deidentify off"
        elif not stored:
            difference = "is not de-identified, and this server has deidentify on"
        else:
            difference = "is de-identified with another pseudonym key than this server's"
        raise Unready(
            f"The Qdrant collection {collection} {difference}. Start with the deidentify and pseudonym_key that it was "
            "made with, or name another qdrant_collection.",
            reason="DEIDENTIFICATION_MISMATCH",
        )
