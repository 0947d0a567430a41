"""Cases with their embeddings, out of a library and into one: the part of the client that needs numpy."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from nearcase.errors import Unready
from nearcase.exchange.messages import (
    batches,
    cases_from_proto,
    counts_from_proto,
    identity_from_proto,
    identity_to_proto,
)
from nearcase.transfers import ImportCounts, LibraryIdentity, StoredCase
from nearcase.v1 import library_pb2

if TYPE_CHECKING:
    from nearcase.v1.library_pb2_grpc import LibraryServiceStub

MAX_UNANSWERED = 8
"""Batches that may be on their way, of at most 8 MiB each: some wait at the server while it commits others."""

_BEYOND_ALL = "ffffffff-ffff-ffff-ffff-ffffffffffff"


class TransferClient:
    """Export and import; reached as `client.transfer`.

    Args:
        stub: Of the library service.
        errors: Turns what gRPC raises into a NearcaseError.
    """

    def __init__(self, stub: LibraryServiceStub, errors: Callable[[], AbstractContextManager[None]]) -> None:
        self._stub, self._errors = stub, errors

    def identity(self, where: str = "") -> LibraryIdentity:
        """Returns what the library is now, and how many of its cases a filter keeps."""
        with self._errors():
            call = self._stub.ExportCases(library_pb2.ExportCasesRequest(filter=where, after_case_id=_BEYOND_ALL))
            messages = list(call)
        return identity_from_proto(messages[0].identity)

    def export(self, where: str = "", *, after_case_id: str = "") -> Iterator[StoredCase]:
        """Yields the cases that match in the order of their ids, as fast as they are taken.

        Args:
            where: A filter.
            after_case_id: Goes on after this case.
        """
        request = library_pb2.ExportCasesRequest(filter=where, after_case_id=after_case_id)
        with self._errors():
            call = self._stub.ExportCases(request)
            try:
                for message in call:
                    yield from cases_from_proto(message.cases)
            finally:
                call.cancel()  # harmless after the end; before it, the server stops reading

    def import_cases(
        self, identity: LibraryIdentity, cases: Iterable[Sequence[StoredCase]]
    ) -> Iterator[tuple[int, ImportCounts]]:
        """Yields how many cases each batch had and what became of them, once they are durable.

        Args:
            identity: Of the library that the cases are from.
            cases: Taken as the server takes them; an error of theirs ends the stream, and is raised here.
        """
        sending = _Sending(identity, cases)
        with self._errors():
            call = self._stub.ImportCases(iter(sending))
            try:
                for answer in call:
                    yield sending.answered(), counts_from_proto(answer)
            finally:
                sending.stop()
                call.cancel()
        sending.raise_own()


class _Sending:
    """The messages of an import; iterated in a thread of grpc's, where an exception would be lost."""

    def __init__(self, identity: LibraryIdentity, cases: Iterable[Sequence[StoredCase]]) -> None:
        self._identity, self._cases = identity, cases
        self._places: queue.Queue[bool] = queue.Queue()  # True: one more may be sent; False: no more
        self._sizes: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._error: BaseException | None = None
        for _ in range(MAX_UNANSWERED):
            self._places.put(True)

    def __iter__(self) -> Iterator[library_pb2.ImportCasesRequest]:
        yield library_pb2.ImportCasesRequest(identity=identity_to_proto(self._identity))
        for message in batches(self._until_an_error()):
            if not self._places.get():
                return
            self._sizes.put(len(message.cases))
            yield library_pb2.ImportCasesRequest(cases=message)

    def _until_an_error(self) -> Iterator[StoredCase]:
        """Ends at an error, so that what came before it is sent; raise_own raises it in the thread that asked."""
        try:
            for some in self._cases:
                yield from some
        except Exception as error:
            self._error = error

    def answered(self) -> int:
        """Returns the size of the oldest batch without an answer, and lets one more go."""
        try:
            size = self._sizes.get_nowait()
        except queue.Empty:
            raise Unready("the server answered more batches than it was sent", reason="UNREADY") from None
        self._places.put(True)
        return size

    def stop(self) -> None:
        """Ends the iteration, which may be waiting."""
        self._places.put(False)

    def raise_own(self) -> None:
        """Raises what reading the cases raised."""
        if self._error is not None:
            raise self._error
