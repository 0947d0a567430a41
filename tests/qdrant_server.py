"""A Qdrant server for tests: the real gRPC services, answered by the client's local mode, and all requests kept.

Local mode ignores layouts, search parameters and orderings; what of those goes over the wire is looked up in `asked`.
"""

from __future__ import annotations

import asyncio
import warnings
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from qdrant_client import AsyncQdrantClient, models
from qdrant_client import grpc as wire
from qdrant_client.conversions.conversion import GrpcToRest, RestToGrpc

Request = Any  # the stubs of the client have no common type
Fault = grpc.StatusCode | float
"""What happens to a call: a refusal, or a wait in seconds."""


class QdrantServer:
    """One server on a port of this machine, which can be stopped and started again with what it holds."""

    def __init__(self) -> None:
        self.asked: list[Request] = []
        self.metadata: list[dict[str, Any]] = []
        self.faults: dict[str, deque[Fault]] = {}  # by the name of the request's type, taken from the left
        self.secret = "Doe^John"  # in the text of every refusal
        self.about: int | None = None  # what counts that need not be exact answer
        self.status = wire.UpdateStatus.Completed
        self.forgets_deletions = False
        self.port = 0
        self.created: dict[str, Request] = {}
        self.schema: dict[str, dict[str, Request]] = {}
        self._stored = AsyncQdrantClient(":memory:")
        self._server: grpc.aio.Server | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def requests(self, kind: type) -> list[Request]:
        return [request for request in self.asked if isinstance(request, kind)]

    async def start(self, credentials: grpc.ServerCredentials | None = None) -> None:
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        wire.add_CollectionsServicer_to_server(_Collections(self), self._server)  # type: ignore[no-untyped-call]
        wire.add_PointsServicer_to_server(_Points(self), self._server)  # type: ignore[no-untyped-call]
        address = f"127.0.0.1:{self.port}"
        if credentials is None:
            self.port = self._server.add_insecure_port(address)
        else:
            self.port = self._server.add_secure_port(address, credentials)
        await self._server.start()

    async def stop(self) -> None:
        assert self._server is not None
        await self._server.stop(None)

    async def answer(self, request: Request, context: Any, work: Callable[[AsyncQdrantClient], Awaitable[Any]]) -> Any:
        self.asked.append(request)
        self.metadata.append(dict(context.invocation_metadata()))
        waiting = self.faults.get(type(request).__name__)
        fault = waiting.popleft() if waiting else None
        if isinstance(fault, grpc.StatusCode):
            await context.abort(fault, f"this is about {self.secret}")
        if isinstance(fault, float):
            await asyncio.sleep(fault)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            return await work(self._stored)

    def info(self, name: str) -> Request:
        made = self.created[name]
        params = wire.CollectionParams(
            shard_number=made.shard_number or 1,
            vectors_config=made.vectors_config,
            replication_factor=made.replication_factor,
            write_consistency_factor=made.write_consistency_factor,
            on_disk_payload=made.on_disk_payload,
        )
        config = wire.CollectionConfig(
            params=params,
            hnsw_config=made.hnsw_config,
            optimizer_config=wire.OptimizersConfigDiff(
                deleted_threshold=0.2, vacuum_min_vector_number=1000, default_segment_number=0, flush_interval_sec=5
            ),
            wal_config=wire.WalConfigDiff(wal_capacity_mb=32, wal_segments_ahead=0),
            strict_mode_config=made.strict_mode_config,
            metadata=made.metadata,
        )
        config.hnsw_config.MergeFrom(wire.HnswConfigDiff(m=16, ef_construct=100))
        if made.HasField("quantization_config"):
            config.quantization_config.CopyFrom(made.quantization_config)
        schema = {
            field: wire.PayloadSchemaInfo(data_type=wire.PayloadSchemaType.Keyword) for field in self.schema[name]
        }
        return wire.CollectionInfo(
            status=wire.CollectionStatus.Green,
            optimizer_status=wire.OptimizerStatus(ok=True),
            segments_count=1,
            config=config,
            payload_schema=schema,
        )


class _Collections(wire.CollectionsServicer):
    def __init__(self, server: QdrantServer) -> None:
        self._server = server

    async def CollectionExists(self, request: Request, context: Any) -> Request:  # noqa: N802
        async def work(stored: AsyncQdrantClient) -> Request:
            exists = wire.CollectionExists(exists=await stored.collection_exists(request.collection_name))
            return wire.CollectionExistsResponse(result=exists)

        return await self._server.answer(request, context, work)

    async def Create(self, request: Request, context: Any) -> Request:  # noqa: N802
        async def work(stored: AsyncQdrantClient) -> Request:
            vectors: Any = GrpcToRest.convert_vectors_config(request.vectors_config)
            await stored.create_collection(request.collection_name, vectors_config=vectors)
            self._server.created[request.collection_name] = request
            self._server.schema[request.collection_name] = {}
            return wire.CollectionOperationResponse(result=True)

        return await self._server.answer(request, context, work)

    async def Get(self, request: Request, context: Any) -> Request:  # noqa: N802
        async def work(_: AsyncQdrantClient) -> Request:
            return wire.GetCollectionInfoResponse(result=self._server.info(request.collection_name))

        return await self._server.answer(request, context, work)

    async def Update(self, request: Request, context: Any) -> Request:  # noqa: N802
        async def work(_: AsyncQdrantClient) -> Request:
            return wire.CollectionOperationResponse(result=True)

        return await self._server.answer(request, context, work)


class _Points(wire.PointsServicer):
    def __init__(self, server: QdrantServer) -> None:
        self._server = server

    def _done(self) -> Request:
        return wire.PointsOperationResponse(result=wire.UpdateResult(operation_id=1, status=self._server.status))

    async def CreateFieldIndex(self, request: Request, context: Any) -> Request:  # noqa: N802
        async def work(_: AsyncQdrantClient) -> Request:
            self._server.schema[request.collection_name][request.field_name] = request
            return self._done()

        return await self._server.answer(request, context, work)

    async def Upsert(self, request: Request, context: Any) -> Request:  # noqa: N802
        async def work(stored: AsyncQdrantClient) -> Request:
            points = [GrpcToRest.convert_point_struct(point) for point in request.points]
            await stored.upsert(request.collection_name, points)
            return self._done()

        return await self._server.answer(request, context, work)

    async def Delete(self, request: Request, context: Any) -> Request:  # noqa: N802
        async def work(stored: AsyncQdrantClient) -> Request:
            if not self._server.forgets_deletions:
                await stored.delete(request.collection_name, GrpcToRest.convert_points_selector(request.points))
            return self._done()

        return await self._server.answer(request, context, work)

    async def SetPayload(self, request: Request, context: Any) -> Request:  # noqa: N802
        async def work(stored: AsyncQdrantClient) -> Request:
            payload = GrpcToRest.convert_payload(request.payload)
            selector = GrpcToRest.convert_points_selector(request.points_selector)
            await stored.set_payload(request.collection_name, payload, selector)
            return self._done()

        return await self._server.answer(request, context, work)

    async def DeletePayload(self, request: Request, context: Any) -> Request:  # noqa: N802
        async def work(stored: AsyncQdrantClient) -> Request:
            selector = GrpcToRest.convert_points_selector(request.points_selector)
            await stored.delete_payload(request.collection_name, list(request.keys), selector)
            return self._done()

        return await self._server.answer(request, context, work)

    async def Get(self, request: Request, context: Any) -> Request:  # noqa: N802
        async def work(stored: AsyncQdrantClient) -> Request:
            found = await stored.retrieve(
                request.collection_name,
                [GrpcToRest.convert_point_id(point_id) for point_id in request.ids],
                with_payload=GrpcToRest.convert_with_payload_selector(request.with_payload),
                with_vectors=request.with_vectors.enable,
            )
            return wire.GetResponse(result=[_record(record) for record in found])

        return await self._server.answer(request, context, work)

    async def Scroll(self, request: Request, context: Any) -> Request:  # noqa: N802
        async def work(stored: AsyncQdrantClient) -> Request:
            found, following = await stored.scroll(
                request.collection_name,
                scroll_filter=_filter(request),
                limit=request.limit,
                offset=GrpcToRest.convert_point_id(request.offset) if request.HasField("offset") else None,
                with_payload=GrpcToRest.convert_with_payload_selector(request.with_payload),
                with_vectors=request.with_vectors.enable,
            )
            offset = None if following is None else RestToGrpc.convert_extended_point_id(str(following))
            records = [_record(record) for record in found]
            return wire.ScrollResponse(result=records, next_page_offset=offset)

        return await self._server.answer(request, context, work)

    async def Count(self, request: Request, context: Any) -> Request:  # noqa: N802
        async def work(stored: AsyncQdrantClient) -> Request:
            found = (await stored.count(request.collection_name, count_filter=_filter(request))).count
            if not request.exact and self._server.about is not None:
                found = self._server.about
            return wire.CountResponse(result=wire.CountResult(count=found))

        return await self._server.answer(request, context, work)

    async def Facet(self, request: Request, context: Any) -> Request:  # noqa: N802
        async def work(stored: AsyncQdrantClient) -> Request:
            found = await stored.facet(
                request.collection_name, request.key, facet_filter=_filter(request), limit=request.limit
            )
            gone = wire.FacetHit(value=wire.FacetValue(string_value="deleted"), count=0)
            return wire.FacetResponse(hits=[*(RestToGrpc.convert_facet_value_hit(hit) for hit in found.hits), gone])

        return await self._server.answer(request, context, work)

    async def QueryBatch(self, request: Request, context: Any) -> Request:  # noqa: N802
        async def work(stored: AsyncQdrantClient) -> Request:
            queries = [GrpcToRest.convert_query_points(query) for query in request.query_points]
            answers = await stored.query_batch_points(request.collection_name, queries)
            return wire.QueryBatchResponse(
                result=[
                    wire.BatchResult(result=[RestToGrpc.convert_scored_point(point) for point in answer.points])
                    for answer in answers
                ]
            )

        return await self._server.answer(request, context, work)


def _filter(request: Request) -> Any:
    return GrpcToRest.convert_filter(request.filter) if request.HasField("filter") else None


def _record(record: models.Record) -> Request:
    return RestToGrpc.convert_retrieved_point(record.model_copy(update={"payload": record.payload or {}}))
