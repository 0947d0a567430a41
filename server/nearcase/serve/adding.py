"""One stream of images into the library: items are read as fast as they are worked off, and each gets one result."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from nearcase.errors import InvalidInput, NearcaseError
from nearcase.intake.frames import middle_frame
from nearcase.retrieve.annotations import Annotations, annotate, as_stated, given_to, renew
from nearcase.retrieve.pending import AddOutcome
from nearcase.serve.annotations import read_annotations
from nearcase.serve.caller import current
from nearcase.serve.chunks import check_size, next_of
from nearcase.serve.encoder_service import item_error
from nearcase.serve.engine import Engine, to_case
from nearcase.serve.notes import notes
from nearcase.v1.library_pb2 import AddedImage, AddImagesRequest, AddImagesResponse, AddImagesStart
from nearcase.v1.library_pb2 import AddOutcome as Wire
from nearcase.v1.types_pb2 import FileChunk

if TYPE_CHECKING:
    from nearcase.serve.uploads import Upload, Uploads
    from nearcase.types import Case

MAX_OPEN_ITEMS = 16
"""Chunked items that one stream may have begun and not finished."""

MAX_UNREAD = 256
"""Results that a client may leave unread; then its stream is not read either."""

_OUTCOMES = {
    AddOutcome.ADDED: Wire.ADD_OUTCOME_ADDED,
    AddOutcome.UNCHANGED: Wire.ADD_OUTCOME_UNCHANGED,
    AddOutcome.REPLACED: Wire.ADD_OUTCOME_REPLACED,
}


@dataclass(frozen=True, slots=True)
class Item:
    """One image on its way."""

    request_id: str
    size_bytes: int
    sha256: str  # as announced, or ""
    frame_number: int | None
    given: Annotations
    upload: Upload | None = None  # None for a file in one message


class AddStream:
    """Works off one client's stream.

    Args:
        max_items: Items in work at once; reading waits while there are as many, which is the back-pressure.
    """

    def __init__(self, engine: Engine, uploads: Uploads, *, max_items: int) -> None:
        self._engine, self._uploads = engine, uploads
        self._open: dict[str, Item] = {}  # chunked items that are not whole yet
        self._refused: set[str] = set()  # chunked items whose further chunks are passed over
        self._active: set[str] = set()  # request ids that may not be begun again now
        self._places = asyncio.Semaphore(max_items)
        self._unread = asyncio.Semaphore(MAX_UNREAD)
        self._results: asyncio.Queue[AddImagesResponse | None] = asyncio.Queue()

    async def run(self, requests: AsyncIterator[AddImagesRequest]) -> AsyncIterator[AddImagesResponse]:
        """Yields one result for each item, in the order in which they end; leaves no work behind when it is closed."""
        reader = asyncio.create_task(self._read(requests))
        reader.add_done_callback(lambda _: self._results.put_nowait(None))
        try:
            while (result := await self._results.get()) is not None:
                self._unread.release()
                yield result
            await reader
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        finally:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)
            for item in self._open.values():
                self._close(item)

    async def _read(self, requests: AsyncIterator[AddImagesRequest]) -> None:
        async with asyncio.TaskGroup() as items:
            while (request := await self._next(requests)) is not None:
                whole = await self._receive(request)
                if whole is not None:
                    await self._places.acquire()  # before the bytes are counted, which wait in turn
                    items.create_task(self._work(*whole))

    async def _next(self, requests: AsyncIterator[AddImagesRequest]) -> AddImagesRequest | None:
        return await next_of(requests, self._engine.settings.stream_idle_s)

    async def _receive(self, request: AddImagesRequest) -> tuple[Item, bytes] | None:
        """Returns the item that this message made whole, with its file if that came in one message."""
        part = request.WhichOneof("part")
        request_id = request.chunk.request_id if part == "chunk" else request.start.request_id
        try:
            if part == "start":
                return await self._begin(request.start)
            if part == "chunk":
                return await self._go_on(request_id, request.chunk.chunk)
            raise InvalidInput("expected a start or a chunk", field="part")
        except NearcaseError as error:
            await self._refuse_item(request_id, error)
            return None

    async def _begin(self, start: AddImagesStart) -> tuple[Item, bytes] | None:
        self._refused.discard(start.request_id)
        if not 1 <= len(start.request_id) <= 128 or start.request_id in self._active:
            message = "expected a request id of 1 to 128 characters, unique among the unfinished items of this stream"
            raise InvalidInput(message, field="request_id")
        item = self._item(start)
        if start.offset_bytes == 0 and len(start.data) == start.size_bytes:
            self._active.add(item.request_id)
            return item, start.data
        if len(self._open) >= MAX_OPEN_ITEMS:
            raise InvalidInput(f"more than {MAX_OPEN_ITEMS} unfinished items in one stream", field="request_id")
        upload = await asyncio.to_thread(
            self._uploads.open, item.request_id, item.sha256, item.size_bytes, current().tenant
        )
        self._open[item.request_id] = replace(item, upload=upload)
        self._active.add(item.request_id)
        return await self._go_on(item.request_id, FileChunk(offset_bytes=start.offset_bytes, data=start.data))

    def _item(self, start: AddImagesStart) -> Item:
        frame_number = start.frame_number if start.HasField("frame_number") else None
        if frame_number is not None and frame_number < 1:
            raise InvalidInput(f"frames count from 1, got {frame_number}", field="frame_number")
        check_size(start.size_bytes, self._engine.settings.max_image_bytes)
        given = read_annotations(start.annotations)
        return Item(start.request_id, start.size_bytes, start.sha256.lower(), frame_number, given)

    async def _go_on(self, request_id: str, chunk: FileChunk) -> tuple[Item, bytes] | None:
        if request_id in self._refused:
            return None  # it has its result; what was sent before the client read that is passed over
        item = self._open.get(request_id)
        if item is None or item.upload is None:
            raise InvalidInput("this chunk's item was not started in this stream", field="request_id")
        await asyncio.to_thread(item.upload.write, chunk.offset_bytes, chunk.data)
        if not item.upload.is_whole:
            return None
        del self._open[request_id]
        return item, b""

    async def _work(self, item: Item, data: bytes) -> None:
        try:
            async with self._engine.flight.wait(item.size_bytes):
                data = await asyncio.to_thread(item.upload.take) if item.upload else data
                answer = await self._add(item, data)
            await self._tell(answer)
        except NearcaseError as error:
            await self._tell(AddImagesResponse(request_id=item.request_id, error=item_error(error)))
        finally:
            self._places.release()
            self._active.discard(item.request_id)
            if item.upload:
                item.upload.drop()
            self._close(item)

    async def _add(self, item: Item, data: bytes) -> AddImagesResponse:
        sha256 = await asyncio.to_thread(lambda: hashlib.sha256(data).hexdigest())
        if item.sha256 not in ("", sha256):
            raise InvalidInput("the bytes that came do not have the announced sha256", field="sha256")
        known = await self._unchanged(item, sha256)
        if known:
            notes().shown([known])
            return _added(item, known.case_id, AddOutcome.UNCHANGED)
        embedding = await self._engine.embed(data, item.frame_number, deadline_s=None, adding=True)
        privacy, stated = self._engine.privacy, to_case(embedding.prepared)
        given, case = privacy.given(stated, item.given), privacy.case(stated, item.given)
        outcome = await self._engine.library.add(case, given, embedding.embedded.embedding, current().name)
        whole = annotate(case, given)
        notes().shown([whole if outcome is AddOutcome.ADDED else await self._stored(whole)])
        return _added(item, case.case_id, outcome)

    async def _stored(self, case: Case) -> Case:
        """Returns the case as the library has it: what was given to it before may say whose it is, too."""
        known = await self._engine.library.known(case.content_sha256)
        return next((each for each in known if each.case_id == case.case_id), case)

    async def _unchanged(self, item: Item, sha256: str) -> Case | None:
        """Returns the case that the file is already, where adding it again would change nothing: no need to decode."""
        privacy = self._engine.privacy
        for case in await self._engine.library.known(privacy.digest(sha256)):
            if case.frame_number == (item.frame_number or middle_frame(case.frame_count)):
                stated = as_stated(case)
                new = privacy.given(stated, item.given)
                if annotate(stated, renew(given_to(case), new)) == case:
                    return case
        return None

    async def _refuse_item(self, request_id: str, error: NearcaseError) -> None:
        """Ends an item that is not whole yet; further chunks of it get no results of their own."""
        item = self._open.pop(request_id, None)
        if item is not None and item.upload is not None:
            item.upload.drop()
            self._close(item)
            self._active.discard(request_id)
        if request_id not in self._active:
            self._refused.add(request_id)
        await self._tell(AddImagesResponse(request_id=request_id, error=item_error(error)))

    async def _tell(self, response: AddImagesResponse) -> None:
        await self._unread.acquire()
        self._results.put_nowait(response)

    def _close(self, item: Item) -> None:
        if item.upload:
            self._uploads.close(item.upload)


def _added(item: Item, case_id: str, outcome: AddOutcome) -> AddImagesResponse:
    added = AddedImage(case_id=case_id, outcome=_OUTCOMES[outcome])
    return AddImagesResponse(request_id=item.request_id, added=added)
