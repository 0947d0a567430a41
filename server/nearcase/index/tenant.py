"""One tenant's part of an index that several share: whatever is asked of it, it knows the tenant's own points only."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from nearcase.errors import InvalidInput
from nearcase.index.base import Erased, IndexState, Neighbour, Page, Part, Point, Record
from nearcase.index.filters import And, Equals, Filter

if TYPE_CHECKING:
    from nearcase.index.base import Index
    from nearcase.types import Embedding

FIELD = "tenant"
_CHUNK = 256


class TenantIndex:
    """An Index over another: every point is stamped with the tenant, and every question is confined to it.

    This is the one place where the tenant's condition is added, so that no caller can forget it.
    """

    def __init__(self, index: Index, tenant: str) -> None:
        if not tenant:
            raise ValueError("a tenant has a name")
        self._index, self._tenant = index, tenant

    async def upsert(self, points: Sequence[Point]) -> None:
        """Stores the tenant's points, all or none.

        Raises:
            InvalidInput: An id is another tenant's: an import may bring any.
            Unready: As the index's own.
        """
        names = [point.point_id for point in points]
        for at in range(0, len(names), _CHUNK):
            for record in await self._index.get(names[at : at + _CHUNK]):
                if not self._owns(record):
                    raise InvalidInput("expected ids that are free here, got one that is taken", field="case_id")
        await self._index.upsert([replace(p, payload={**p.payload, FIELD: self._tenant}) for p in points])

    async def search(
        self,
        vector: Embedding,
        *,
        limit: int,
        where: Filter | None = None,
        without: Sequence[str] = (),
        exact: bool = False,
    ) -> list[Neighbour]:
        """Returns the tenant's nearest points."""
        return await self._index.search(vector, limit=limit, where=self._own(where), without=without, exact=exact)

    async def search_batch(
        self,
        vectors: Sequence[Embedding],
        *,
        limit: int,
        where: Filter | None = None,
        without: Sequence[str] = (),
        exact: bool = False,
    ) -> list[list[Neighbour]]:
        """Returns what `search` returns for each vector."""
        own = self._own(where)
        return await self._index.search_batch(vectors, limit=limit, where=own, without=without, exact=exact)

    async def get(self, point_ids: Sequence[str], *, with_vectors: bool = False) -> list[Record]:
        """Returns the points that exist and are the tenant's; others are as absent as those that are not there."""
        return [each for each in await self._index.get(point_ids, with_vectors=with_vectors) if self._owns(each)]

    async def scroll(
        self,
        *,
        limit: int,
        cursor: str | None = None,
        where: Filter | None = None,
        without: Sequence[str] = (),
        with_vectors: bool = False,
    ) -> Page:
        """Returns one page of the tenant's points."""
        return await self._index.scroll(
            limit=limit, cursor=cursor, where=self._own(where), without=without, with_vectors=with_vectors
        )

    def count(self, where: Filter | None = None) -> Awaitable[int]:
        """Returns how many of the tenant's points match."""
        return self._index.count(self._own(where))

    async def facet(self, field: str, *, where: Filter | None = None, limit: int = 100) -> dict[str, int]:
        """Returns how many of the tenant's points have each value."""
        return await self._index.facet(field, where=self._own(where), limit=limit)

    async def delete(self, where: Filter) -> int:
        """Deletes what matches of the tenant's points."""
        return await self._index.delete(self._own(where))

    async def erase(self, point_ids: Sequence[str]) -> Erased:
        """Erases those of the points that are the tenant's."""
        own = [
            record.point_id
            for at in range(0, len(point_ids), _CHUNK)
            for record in await self.get(point_ids[at : at + _CHUNK])
        ]
        return await self._index.erase(own)

    async def state(self) -> IndexState:
        """Returns the index's tier, with the tenant's points as its one part: sizes of parts tell of the others."""
        whole = await self._index.state()
        return replace(whole, parts=(Part("tenant", "tenant", await self.count(), whole.is_exact),))

    async def generation(self) -> str | None:
        """Returns the index's own: a write of another tenant renames the state of all."""
        return await self._index.generation()

    async def close(self) -> None:
        """Leaves the index open, for the others."""

    def _own(self, where: Filter | None) -> Filter:
        mine = Equals(FIELD, self._tenant)
        return mine if where is None else And((mine, where))

    def _owns(self, record: Record) -> bool:
        return record.payload.get(FIELD) == self._tenant
