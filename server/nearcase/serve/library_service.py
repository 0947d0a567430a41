"""LibraryService: adding, reading, erasing."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections.abc import AsyncIterator

from google.protobuf.field_mask_pb2 import FieldMask

from nearcase.convert import case_to_proto, check_case_mask, encoder_to_proto, recall_to_proto
from nearcase.errors import InvalidInput
from nearcase.index.filter_text import parse, to_text
from nearcase.index.filters import Filter
from nearcase.serve.adding import AddStream
from nearcase.serve.caller import current
from nearcase.serve.context import Context
from nearcase.serve.engine import Engine
from nearcase.serve.life import (
    case_key,
    erase_cases,
    erasure_to_proto,
    merge_patients,
    page_of_erasures,
    update_cases,
)
from nearcase.serve.notes import notes
from nearcase.serve.recall import state_to_proto, to_sample
from nearcase.serve.transfer import export_cases, import_cases
from nearcase.serve.uploads import Uploads, folder_size_bytes
from nearcase.v1 import library_pb2, library_pb2_grpc

MAX_PAGE = 1000
MAX_TOKEN = 200


class LibraryService(library_pb2_grpc.LibraryServiceServicer):
    """Keeps the prior cases."""

    def __init__(self, engine: Engine, uploads: Uploads) -> None:
        self._engine, self._uploads = engine, uploads

    async def AddImages(
        self, request_iterator: AsyncIterator[library_pb2.AddImagesRequest], context: Context
    ) -> AsyncIterator[library_pb2.AddImagesResponse]:
        """Adds images; one result for each."""
        max_items = 4 * self._engine.settings.decode_worker_count
        stream = AddStream(self._engine, self._uploads, max_items=max_items)
        async for response in stream.run(request_iterator):
            yield response

    async def GetUpload(self, request: library_pb2.GetUploadRequest, context: Context) -> library_pb2.GetUploadResponse:
        """Tells how much of an unfinished item is here."""
        received, size = await asyncio.to_thread(
            self._uploads.find, request.request_id, request.sha256, current().tenant
        )
        return library_pb2.GetUploadResponse(received_bytes=received, size_bytes=size)

    async def GetCase(self, request: library_pb2.GetCaseRequest, context: Context) -> library_pb2.GetCaseResponse:
        """Returns one case."""
        names = check_case_mask(request.case_mask)
        case, _ = await self._engine.library.get(case_key(self._engine, request))
        notes().shown([case])
        return library_pb2.GetCaseResponse(case=case_to_proto(case, names))

    async def ListCases(self, request: library_pb2.ListCasesRequest, context: Context) -> library_pb2.ListCasesResponse:
        """Returns a page of cases in the order of their ids."""
        names = check_case_mask(request.case_mask)
        if request.page_size < 0:
            raise InvalidInput(f"expected page_size from 0, got {request.page_size}", field="page_size")
        where = parse(request.filter) if request.filter.strip() else None
        page = await self._engine.library.page(
            limit=min(request.page_size or 100, MAX_PAGE),
            cursor=_read_token(request.page_token, where),
            where=self._engine.privacy.where(where) if where else None,
            with_thumbnails="thumbnail_jpeg" in names,
        )
        notes().asked("filter", request.filter.strip())
        notes().shown(page.cases)
        return library_pb2.ListCasesResponse(
            cases=[case_to_proto(case, names) for case in page.cases],
            next_page_token=_write_token(page.next_cursor, where),
            total_size=page.total,
        )

    async def UpdateCase(
        self, request: library_pb2.UpdateCaseRequest, context: Context
    ) -> library_pb2.UpdateCaseResponse:
        """Corrects the labels and flags of a case, or of all cases of an instance."""
        cases = await update_cases(self._engine, request)
        notes().shown(cases)
        first = case_to_proto(cases[0], check_case_mask(FieldMask()))
        return library_pb2.UpdateCaseResponse(case=first, case_count=len(cases))

    async def MergePatients(
        self, request: library_pb2.MergePatientsRequest, context: Context
    ) -> library_pb2.MergePatientsResponse:
        """Gives the cases of one patient to another."""
        return library_pb2.MergePatientsResponse(changed_count=await merge_patients(self._engine, request))

    async def EraseCases(
        self, request: library_pb2.EraseCasesRequest, context: Context
    ) -> library_pb2.EraseCasesResponse:
        """Removes cases, proves it, and returns the certificate."""
        done = await erase_cases(self._engine, request)
        last = erasure_to_proto(done[-1]) if done else None
        return library_pb2.EraseCasesResponse(erased_count=sum(each.case_count for each in done), certificate=last)

    async def ListErasures(
        self, request: library_pb2.ListErasuresRequest, context: Context
    ) -> library_pb2.ListErasuresResponse:
        """Returns a page of certificates, newest first."""
        page, token = page_of_erasures(self._engine.erasures.certificates(), request.page_size, request.page_token)
        return library_pb2.ListErasuresResponse(erasures=map(erasure_to_proto, page), next_page_token=token)

    async def ExportCases(
        self, request: library_pb2.ExportCasesRequest, context: Context
    ) -> AsyncIterator[library_pb2.ExportCasesResponse]:
        """Streams cases with their embeddings in the order of case ids."""
        async for response in export_cases(self._engine, request):
            yield response

    async def ImportCases(
        self, request_iterator: AsyncIterator[library_pb2.ImportCasesRequest], context: Context
    ) -> AsyncIterator[library_pb2.ImportCasesResponse]:
        """Stores exported cases; one answer for each batch."""
        async for response in import_cases(self._engine, request_iterator):
            yield response

    async def GetStatistics(
        self, request: library_pb2.GetStatisticsRequest, context: Context
    ) -> library_pb2.GetStatisticsResponse:
        """Counts what the library holds."""
        counted, index = await self._engine.library.statistics(), self._engine.index
        return library_pb2.GetStatisticsResponse(
            case_count=counted.case_count,
            patient_count=counted.patient_count,
            field_counts=[
                library_pb2.FieldCounts(field=field, counts=counts) for field, counts in counted.field_counts.items()
            ],
            encoder=encoder_to_proto(self._engine.summary),
            size_bytes=await self._size_bytes(),
            index=state_to_proto(await index.state(), self._engine.recall.known_to(index)),
        )

    async def _size_bytes(self) -> int:
        """0 where tenants share the files: their size would tell of the others."""
        if self._engine.tenants.many:
            return 0
        return await asyncio.to_thread(folder_size_bytes, self._engine.settings.data)

    async def CheckRecall(
        self, request: library_pb2.CheckRecallRequest, context: Context
    ) -> library_pb2.CheckRecallResponse:
        """Compares searches with exact ones."""
        return recall_to_proto(await self._engine.recall.check_now(to_sample(request), self._engine.index))


def _write_token(cursor: str | None, where: Filter | None) -> str:
    """Page tokens are opaque and bound to their filter (AIP-158)."""
    if cursor is None:
        return ""
    return base64.urlsafe_b64encode(json.dumps([cursor, _digest(where)]).encode()).decode()


def _read_token(token: str, where: Filter | None) -> str | None:
    if not token:
        return None
    try:
        read = json.loads(base64.urlsafe_b64decode(token)) if len(token) <= MAX_TOKEN else None
    except ValueError:
        read = None
    cursor, digest = read if isinstance(read, list) and len(read) == 2 else (None, "")
    if not isinstance(cursor, str) or digest != _digest(where):
        raise InvalidInput("this page_token is not from a ListCases with the same filter", field="page_token")
    return cursor


def _digest(where: Filter | None) -> str:
    """Two texts of one meaning are one filter."""
    return hashlib.sha256(to_text(where).encode() if where else b"").hexdigest()[:16]
