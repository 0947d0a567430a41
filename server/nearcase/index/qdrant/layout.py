"""How a collection is laid out: what a single server and a cluster differ in, and nothing else does."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from functools import partial
from typing import Any

from qdrant_client import AsyncQdrantClient, models

from nearcase.errors import NearcaseError, Unready
from nearcase.index.fields import FIELDS, FieldKind
from nearcase.index.qdrant.calls import Calls
from nearcase.index.qdrant.identity import Identity
from nearcase.settings import Settings

EXACT_UP_TO = 20_000
"""Candidates that are scored one by one: at 0.2 to 0.5 us each at most 10 ms of CPU, at recall 1. A graph was measured
at recall 0.85 on 1 000 candidates of 100 000."""

LINKED = frozenset({"tenant", "modality", "body_part", "label_names"})
"""Fields that most filters name, which get links in the graph: filtered recall 0.98 to 1 where it was 0.007 to 0.95
without, at three times the CPU to build."""

OF_ONE_IMAGE = frozenset(
    {"case_id", "instance_uid", "content_sha256", "patient_key", "patient_id", "study_uid", "series_uid"}
)
"""Fields with about as many values as images: their indexes are larger than codes of the vectors, and lie on the disk
where the vectors do."""

_M, _EF_CONSTRUCT = 16, 100

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Layout:
    """What is asked of the server; the settings of the same names say why."""

    collection: str = "nearcase"
    shards: int = 1
    replicas: int = 1
    write_consistency: int = 1
    quantization: str = "none"
    is_on_disk: bool = False
    is_strict: bool = True

    @classmethod
    def of(cls, settings: Settings) -> Layout:
        """Returns the layout that the settings ask for."""
        return cls(
            collection=settings.qdrant_collection,
            shards=settings.qdrant_shard_count,
            replicas=settings.qdrant_replicas,
            write_consistency=settings.qdrant_write_consistency_count,
            quantization=settings.qdrant_quantization,
            is_on_disk=settings.qdrant_on_disk,
            is_strict=settings.qdrant_strict,
        )


async def ensure(client: AsyncQdrantClient, calls: Calls, layout: Layout, identity: Identity) -> None:
    """Makes the collection if it is absent, with every index before any vector, and compares it otherwise.

    Raises:
        Unready: The collection belongs to another program, encoder or pseudonym key, or is laid out in a way that can
            not be changed any more; or the server is not there or refuses.
    """
    name = layout.collection
    if not await _exists(client, calls, name):
        await _create(client, calls, layout, identity)
    info = await calls.read_all("the collection", lambda _: client.get_collection(name))
    identity.compare(name, info.config.metadata)
    _compare(info.config.params, layout, identity.dimension)
    await _adapt(client, calls, info.config, layout)
    for field in FIELDS:
        if field not in info.payload_schema:
            await calls.write("an index of a field", partial(_declare, client, layout, field))


async def _declare(client: AsyncQdrantClient, layout: Layout, field: str, left_s: int) -> object:
    schema, ordering = _schema(field, layout.is_on_disk), models.WriteOrdering.STRONG
    return await client.create_payload_index(layout.collection, field, schema, ordering=ordering, timeout=left_s)


async def _exists(client: AsyncQdrantClient, calls: Calls, name: str) -> bool:
    return await calls.read_all("the collection", lambda _: client.collection_exists(name))


async def _create(client: AsyncQdrantClient, calls: Calls, layout: Layout, identity: Identity) -> None:
    request = creation(layout, identity)
    try:
        await calls.write("a new collection", lambda left_s: client.create_collection(**request, timeout=left_s))
    except NearcaseError:
        if not await _exists(client, calls, layout.collection):
            raise  # where it does exist, another server made it between our two calls, or our first attempt did


def creation(layout: Layout, identity: Identity) -> dict[str, Any]:
    """Returns the arguments of the call that makes the collection.

    Dot on unit vectors is the cosine, and leaves stored bits alone.
    """
    return {
        "collection_name": layout.collection,
        "vectors_config": models.VectorParams(
            size=identity.dimension, distance=models.Distance.DOT, on_disk=layout.is_on_disk
        ),
        "hnsw_config": models.HnswConfigDiff(
            m=_M, ef_construct=_EF_CONSTRUCT, full_scan_threshold=_full_scan_kb(identity.dimension)
        ),
        "quantization_config": _quantization(layout.quantization),
        "shard_number": layout.shards,
        "replication_factor": layout.replicas,
        "write_consistency_factor": layout.write_consistency,
        "on_disk_payload": True,  # thumbnails are in it; what filters read lies in the indexes
        "strict_mode_config": _strict(layout.is_strict),
        "metadata": identity.as_metadata(),
    }


def _full_scan_kb(dimension: int) -> int:
    """Below so many KB of candidates the server itself scores one by one."""
    return math.ceil(EXACT_UP_TO * dimension * 4 / 1024)


def _schema(
    field: str, is_on_disk: bool
) -> models.KeywordIndexParams | models.FloatIndexParams | models.IntegerIndexParams:
    match FIELDS[field]:
        case FieldKind.KEYWORD:
            return models.KeywordIndexParams(
                type=models.KeywordIndexType.KEYWORD,
                is_tenant=field == "tenant" or None,  # keeps a tenant's points side by side on the disk
                on_disk=(is_on_disk and field in OF_ONE_IMAGE) or None,
                enable_hnsw=field in LINKED,
            )
        case FieldKind.NUMBER:
            return models.FloatIndexParams(type=models.FloatIndexType.FLOAT, enable_hnsw=field in LINKED)
        case FieldKind.INTEGER:
            integer = models.IntegerIndexType.INTEGER
            return models.IntegerIndexParams(type=integer, lookup=True, range=True, enable_hnsw=field in LINKED)


def _quantization(name: str) -> models.ScalarQuantization | models.TurboQuantization | None:
    """Codes in memory; the originals rescore what the codes find."""
    if name == "int8":
        return models.ScalarQuantization(
            scalar=models.ScalarQuantizationConfig(type=models.ScalarType.INT8, always_ram=True)
        )
    if name == "4bit":
        bits = models.TurboQuantBitSize.BITS4
        return models.TurboQuantization(turbo=models.TurboQuantQuantizationConfig(bits=bits, always_ram=True))
    return None


def _strict(is_strict: bool) -> models.StrictModeConfig:
    """The server refuses what our own check of filters has missed, and keeps a second program from slow filters."""
    return models.StrictModeConfig(
        enabled=is_strict, unindexed_filtering_retrieve=not is_strict, unindexed_filtering_update=not is_strict
    )


def _compare(found: models.CollectionParams, layout: Layout, dimension: int) -> None:
    """What can not be changed later."""
    vectors = found.vectors
    if not isinstance(vectors, models.VectorParams) or vectors.distance is not models.Distance.DOT:
        raise _mismatch(layout, "one unnamed vector compared by dot product", "another kind")
    if vectors.size != dimension:
        raise _mismatch(layout, f"vectors of {dimension} numbers", f"{vectors.size}")
    if found.shard_number not in (None, layout.shards):
        raise _mismatch(layout, f"{layout.shards} shards", f"{found.shard_number}; set qdrant_shards to that")


def _mismatch(layout: Layout, expected: str, got: str) -> Unready:
    message = f"Expected {expected} in the Qdrant collection {layout.collection}, got {got}; or name a new collection."
    return Unready(message, reason="INDEX_LAYOUT")


async def _adapt(client: AsyncQdrantClient, calls: Calls, found: models.CollectionConfig, layout: Layout) -> None:
    """What can be changed follows the settings; more replicas than before are then filled by the server's operator."""
    changed: dict[str, Any] = {}
    params = models.CollectionParamsDiff(
        replication_factor=layout.replicas, write_consistency_factor=layout.write_consistency
    )
    if (found.params.replication_factor or 1, found.params.write_consistency_factor or 1) != (
        layout.replicas,
        layout.write_consistency,
    ):
        changed["collection_params"] = params
    if _name_of(found.quantization_config) != layout.quantization:
        changed["quantization_config"] = _quantization(layout.quantization) or models.Disabled.DISABLED
    if (
        isinstance(found.params.vectors, models.VectorParams)
        and bool(found.params.vectors.on_disk) != layout.is_on_disk
    ):
        changed["vectors_config"] = {"": models.VectorParamsDiff(on_disk=layout.is_on_disk)}
    if bool(found.strict_mode_config and found.strict_mode_config.enabled) != layout.is_strict:
        changed["strict_mode_config"] = _strict(layout.is_strict)
    if changed:
        log.warning("the Qdrant collection %s follows changed settings: %s", layout.collection, ", ".join(changed))
        await calls.write(
            "changed settings",
            lambda left_s: client.update_collection(layout.collection, timeout=left_s, **changed),
        )


def _name_of(config: object) -> str:
    match config:
        case None:
            return "none"
        case models.ScalarQuantization(scalar=models.ScalarQuantizationConfig(type=models.ScalarType.INT8)):
            return "int8"
        case models.TurboQuantization(turbo=models.TurboQuantQuantizationConfig(bits=models.TurboQuantBitSize.BITS4)):
            return "4bit"
    return "another"
