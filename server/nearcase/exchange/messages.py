"""StoredCase and LibraryIdentity <-> their messages; numpy is imported where it is used, for the base install."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from nearcase.convert import case_from_proto, case_to_proto
from nearcase.transfers import ImportCounts, LibraryIdentity, StoredCase
from nearcase.v1 import library_pb2, types_pb2

if TYPE_CHECKING:
    from nearcase.types import Embedding

_ALL = frozenset(types_pb2.Case.DESCRIPTOR.fields_by_name)

MAX_BATCH_CASES = 64
MAX_BATCH_BYTES = 8 * 2**20
"""Limits of one message of cases: what a server commits with one flush, and what any client can receive."""


def cases_to_proto(cases: Iterable[StoredCase]) -> library_pb2.ExportedCases:
    """Sends all of each case, its thumbnail and history too."""
    return library_pb2.ExportedCases(cases=[_to_proto(stored) for stored in cases])


def cases_from_proto(message: library_pb2.ExportedCases) -> tuple[StoredCase, ...]:
    """The inverse of cases_to_proto."""
    return tuple(_from_proto(each) for each in message.cases)


def batches(cases: Iterable[StoredCase]) -> Iterable[library_pb2.ExportedCases]:
    """Yields messages within the limits; a case that is larger than a message alone goes alone."""
    batch, size_bytes = library_pb2.ExportedCases(), 0
    for stored in cases:
        message = _to_proto(stored)
        more_bytes = message.ByteSize() + 8
        if batch.cases and (len(batch.cases) >= MAX_BATCH_CASES or size_bytes + more_bytes > MAX_BATCH_BYTES):
            yield batch
            batch, size_bytes = library_pb2.ExportedCases(), 0
        batch.cases.append(message)
        size_bytes += more_bytes
    if batch.cases:
        yield batch


def identity_to_proto(identity: LibraryIdentity) -> library_pb2.LibraryIdentity:
    """Field by field."""
    return library_pb2.LibraryIdentity(
        encoder_identity=identity.encoder_identity,
        dimension=identity.dimension,
        pseudonym_check=identity.pseudonym_check,
        snapshot=identity.snapshot,
        case_count=identity.case_count,
    )


def identity_from_proto(message: library_pb2.LibraryIdentity) -> LibraryIdentity:
    """The inverse of identity_to_proto."""
    return LibraryIdentity(
        message.encoder_identity, message.dimension, message.pseudonym_check, message.snapshot, message.case_count
    )


def counts_to_proto(counts: ImportCounts) -> library_pb2.ImportCasesResponse:
    """Field by field."""
    return library_pb2.ImportCasesResponse(
        added_count=counts.added,
        unchanged_count=counts.unchanged,
        replaced_count=counts.replaced,
        erased_count=counts.erased,
    )


def counts_from_proto(message: library_pb2.ImportCasesResponse) -> ImportCounts:
    """The inverse of counts_to_proto."""
    return ImportCounts(message.added_count, message.unchanged_count, message.replaced_count, message.erased_count)


def _to_proto(stored: StoredCase) -> library_pb2.ExportedCase:
    return library_pb2.ExportedCase(
        case=case_to_proto(stored.case, _ALL), values=stored.vector.tolist(), given=stored.case.given
    )


def _from_proto(message: library_pb2.ExportedCase) -> StoredCase:
    case = replace(case_from_proto(message.case), given=tuple(message.given))
    return StoredCase(case, _vector(message.values))


def _vector(values: Sequence[float]) -> Embedding:
    import numpy as np

    return np.array(values, dtype=np.float32)
