"""When a shared collection last changed: one point in a collection beside it, that every writing server moves.

    {"generation": "9f..", "writing_3c..": 1700000000.0}

A write names a new generation and sets its server's mark; then it writes; then it takes its mark away. While a mark
stands the state has no name. So equal names mean that no write began or ended between them. The mark of a server that
died, or whose write has no known end, is passed over after MARK_LIFE_S, when that write is over for certain; the
generation is the one that this write named, and nobody has seen it before.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from qdrant_client import AsyncQdrantClient, models

from nearcase.errors import NearcaseError, Unready
from nearcase.index.qdrant.calls import Calls

MARK_LIFE_S = 600.0
"""Longer than a write with all its repetitions, and than clocks of two hosts differ."""

_POINT = "00000000-0000-5000-8000-000000000001"
_MARK = "writing_"

log = logging.getLogger(__name__)


class Marks:
    """The marks of one collection; made by `open`."""

    def __init__(self, client: AsyncQdrantClient, calls: Calls, collection: str) -> None:
        self._client, self._calls, self._name = client, calls, f"{collection}_state"
        self._mark = f"{_MARK}{uuid.uuid4().hex}"
        self._writes = 0  # of this server in progress
        self._is_unknown = False  # how a write of theirs ended

    async def open(self, *, replicas: int, write_consistency: int) -> None:
        """Makes the collection and its point where they are absent.

        Raises:
            Unready: The server is not there or refuses.
        """
        client, name = self._client, self._name
        if not await self._exists():
            try:
                await self._calls.write(
                    "a new collection",
                    lambda left_s: client.create_collection(
                        name,
                        vectors_config={},
                        shard_number=1,
                        replication_factor=replicas,
                        write_consistency_factor=write_consistency,
                        timeout=left_s,
                    ),
                )
            except NearcaseError:
                if not await self._exists():
                    raise
        if not await self._payload():
            first = models.PointStruct(id=_POINT, vector={}, payload={"generation": uuid.uuid4().hex})
            await self._calls.write(
                "the generation",
                lambda left_s: client.upsert(
                    name,
                    [first],
                    ordering=models.WriteOrdering.STRONG,
                    update_mode=models.UpdateMode.INSERT_ONLY,  # another server may be faster
                    timeout=left_s,
                ),
            )

    async def name(self) -> str:
        """Returns the name of the collection's state; one that never comes again while somebody writes."""
        payload = await self._payload()
        since_s = time.time() - MARK_LIFE_S
        is_settled = not any(key.startswith(_MARK) and float(at_s) > since_s for key, at_s in payload.items())
        generation = payload.get("generation") if is_settled else None
        return f"shared-{generation or uuid.uuid4().hex}"

    @asynccontextmanager
    async def change(self) -> AsyncIterator[None]:
        """Encloses a write; its own failures before the write are those of the write, afterwards they only cost time.

        Raises:
            Unready: The mark could not be set, and nothing was written.
        """
        payload = {"generation": uuid.uuid4().hex, self._mark: time.time()}
        self._writes += 1
        try:
            await self._calls.write("the generation", lambda _: self._set(payload))
            yield
        except BaseException as error:
            self._is_unknown |= isinstance(error, Unready) or not isinstance(error, NearcaseError)
            raise
        else:
            self._is_unknown = False
        finally:
            self._writes -= 1
            if not self._writes and not self._is_unknown:
                await self._take_away()

    async def _set(self, payload: dict[str, Any]) -> object:
        return await self._client.set_payload(
            self._name, payload, points=[_POINT], wait=True, ordering=models.WriteOrdering.STRONG
        )

    async def _take_away(self) -> None:
        try:
            await self._calls.write(
                "the generation",
                lambda _: self._client.delete_payload(
                    self._name, [self._mark], points=[_POINT], wait=True, ordering=models.WriteOrdering.STRONG
                ),
            )
        except NearcaseError as error:  # what was written is written; the state only stays without a name for a while
            log.warning("the mark of a write stays: %s", error)

    async def _exists(self) -> bool:
        return await self._calls.read_all("the collection", lambda _: self._client.collection_exists(self._name))

    async def _payload(self) -> dict[str, Any]:
        found = await self._calls.read(
            "the generation",
            lambda left_s: self._client.retrieve(
                self._name,
                [_POINT],
                with_payload=True,
                consistency=models.ReadConsistencyType.MAJORITY,
                timeout=left_s,
            ),
        )
        return dict(found[0].payload or {}) if found else {}
