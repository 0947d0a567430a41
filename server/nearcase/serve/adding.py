"""One stream of images into the library: items are read as fast as they are worked off, and each gets one result."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from nearcase.errors import InvalidInput, NearcaseError
from nearcase.retrieve.library import AddOutcome
from nearcase.serve.annotations import adds_nothing, check, merge
from nearcase.serve.chunks import check_size
from nearcase.serve.encoder_service import item_error
from nearcase.serve.engine import Engine, to_case
from nearcase.v1.library_pb2 import AddedImage, AddImagesRequest, AddImagesResponse, AddImagesStart
from nearcase.v1.library_pb2 import AddOutcome as Wire
from nearcase.v1.types_pb2 import FileChunk

if TYPE_CHECKING:
    from nearcase.serve.uploads import Upload, Uploads

MAX_OPEN_ITEMS = 16
"""Chunked items that one stream may have begun and not finished."""

_OUTCOMES = {
    AddOutcome.ADDED: Wire.ADD_OUTCOME_ADDED,
    AddOutcome.UNCHANGED: Wire.ADD_OUTCOME_UNCHANGED,
    AddOutcome.REPLACED: Wire.ADD_OUTCOME_REPLACED,
}


class AddStream:
    """Works off one client's stream.

    Args:
        max_items: Items in work at once; reading waits while there are as many, which is the back-pressure.
    """

    def __init__(self, engine: Engine, uploads: Uploads, *, max_items: int) -> None:
        self._engine, self._uploads = engine, uploads
        self._open: dict[str, tuple[AddImagesStart, Upload]] = {}
        self._places = asyncio.Semaphore(max_items)
        self._results: asyncio.Queue[AddImagesResponse | None] = asyncio.Queue()

    async def run(self, requests: AsyncIterator[AddImagesRequest]) -> AsyncIterator[AddImagesResponse]:
        """Yields one result for each item, in the order in which they end; leaves no work behind when it is closed."""
        reader = asyncio.create_task(self._read(requests))
        try:
            while (result := await self._results.get()) is not None:
                yield result
            await reader
        finally:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)
            for _, upload in self._open.values():
                self._uploads.close(upload)

    async def _read(self, requests: AsyncIterator[AddImagesRequest]) -> None:
        try:
            async with asyncio.TaskGroup() as items:
                async for request in requests:
                    start, upload = await self._receive(request)
                    if start is not None:
                        await self._places.acquire()
                        items.create_task(self._work(start, upload))
        finally:
            self._results.put_nowait(None)

    async def _receive(self, request: AddImagesRequest) -> tuple[AddImagesStart | None, Upload | None]:
        """Returns the item that this message made whole, if it did; a message that is refused ends its item."""
        part = request.WhichOneof("part")
        request_id = request.chunk.request_id if part == "chunk" else request.start.request_id
        try:
            if part == "start":
                return await self._begin(request.start)
            if part == "chunk":
                return await self._go_on(request_id, request.chunk.chunk)
            raise InvalidInput("expected a start or a chunk", field="part")
        except NearcaseError as error:
            self._forget(request_id)
            self._refuse(request_id, error)
            return None, None

    async def _begin(self, start: AddImagesStart) -> tuple[AddImagesStart | None, Upload | None]:
        if not 1 <= len(start.request_id) <= 128 or start.request_id in self._open:
            raise InvalidInput(
                "expected a request id of 1 to 128 characters, unique in this stream", field="request_id"
            )
        check(start.annotations)
        if start.HasField("frame_number") and start.frame_number < 1:
            raise InvalidInput(f"frames count from 1, got {start.frame_number}", field="frame_number")
        check_size(start.size_bytes, self._engine.settings.max_image_bytes)
        if start.offset_bytes == 0 and len(start.data) == start.size_bytes:
            return start, None
        if len(self._open) >= MAX_OPEN_ITEMS:
            raise InvalidInput(f"more than {MAX_OPEN_ITEMS} unfinished items in one stream", field="request_id")
        upload = await asyncio.to_thread(self._uploads.open, start.request_id, start.sha256, start.size_bytes)
        self._open[start.request_id] = (start, upload)
        return await self._go_on(start.request_id, FileChunk(offset_bytes=start.offset_bytes, data=start.data))

    async def _go_on(self, request_id: str, chunk: FileChunk) -> tuple[AddImagesStart | None, Upload | None]:
        if request_id not in self._open:
            raise InvalidInput("this chunk's item was not started in this stream, or was refused", field="request_id")
        start, upload = self._open[request_id]
        await asyncio.to_thread(upload.write, chunk.offset_bytes, chunk.data)
        if not upload.is_whole:
            return None, None
        del self._open[request_id]
        return start, upload

    async def _work(self, start: AddImagesStart, upload: Upload | None) -> None:
        try:
            data = await asyncio.to_thread(upload.take) if upload else start.data
            self._results.put_nowait(await self._add(start, data))
        except NearcaseError as error:
            self._refuse(start.request_id, error)
        finally:
            self._places.release()
            if upload:
                upload.drop()
                self._uploads.close(upload)

    async def _add(self, start: AddImagesStart, data: bytes) -> AddImagesResponse:
        sha256 = await asyncio.to_thread(lambda: hashlib.sha256(data).hexdigest())
        if start.sha256 not in ("", sha256):
            raise InvalidInput("the bytes that came do not have the announced sha256", field="sha256")
        for case in await self._engine.library.known(sha256):
            wanted_frame = start.frame_number if start.HasField("frame_number") else case.frame_number
            if case.frame_number == wanted_frame and adds_nothing(case, start.annotations):
                return _added(start.request_id, case.case_id, AddOutcome.UNCHANGED)
        frame_number = start.frame_number if start.HasField("frame_number") else None
        embedding = await self._engine.embed(data, frame_number, deadline_s=None, bulk=True)
        case = merge(to_case(embedding.prepared), start.annotations)
        outcome = await self._engine.library.add(case, embedding.embedded.embedding)
        return _added(start.request_id, case.case_id, outcome)

    def _forget(self, request_id: str) -> None:
        if request_id in self._open:
            _, upload = self._open.pop(request_id)
            upload.drop()
            self._uploads.close(upload)

    def _refuse(self, request_id: str, error: NearcaseError) -> None:
        self._results.put_nowait(AddImagesResponse(request_id=request_id, error=item_error(error)))


def _added(request_id: str, case_id: str, outcome: AddOutcome) -> AddImagesResponse:
    added = AddedImage(case_id=case_id, outcome=_OUTCOMES[outcome])
    return AddImagesResponse(request_id=request_id, added=added)
