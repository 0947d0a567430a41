"""Qdrant indexes for tests: in this process's memory, and on the server that QDRANT_TEST_URL names."""

from __future__ import annotations

import os
import uuid
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qdrant_client import AsyncQdrantClient
from qdrant_server import QdrantServer
from strategies import point_id

from nearcase.index.base import Point
from nearcase.index.qdrant.calls import Calls
from nearcase.index.qdrant.connection import connect
from nearcase.index.qdrant.identity import Identity
from nearcase.index.qdrant.index import QdrantIndex
from nearcase.index.qdrant.layout import Layout
from nearcase.settings import Settings

IDENTITY = Identity(4, "one")
AXES = np.eye(4, dtype=np.float32)


async def in_memory(identity: Identity = IDENTITY, client: AsyncQdrantClient | None = None) -> QdrantIndex:
    """An index in the client's local mode, which says once in a process that it has neither indexes nor parameters."""
    made = client or AsyncQdrantClient(":memory:")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        index = await QdrantIndex.open(made, Calls(read_limit_s=5, write_limit_s=30), Layout(), identity)
        await index.search(np.ones(identity.dimension, np.float32), limit=1)
    return index


def live_settings(**changed: object) -> Settings:
    """Settings for the server that QDRANT_TEST_URL names, with a collection of its own."""
    url = os.environ.get("QDRANT_TEST_URL")
    if not url:
        pytest.skip("QDRANT_TEST_URL names no Qdrant server")
    key = os.environ.get("QDRANT_TEST_API_KEY_FILE")
    given: dict[str, object] = {
        "index": "qdrant",
        "qdrant_url": url,
        "qdrant_api_key": Path(key) if key else None,
        "qdrant_collection": f"nearcase_test_{uuid.uuid4().hex}",
    }
    return Settings(**(given | changed))  # type: ignore[arg-type]  # a test names real settings


@asynccontextmanager
async def on_a_server(identity: Identity = IDENTITY, **changed: object) -> AsyncIterator[QdrantIndex]:
    """An index on the live server, whose collections go with it."""
    settings = live_settings(**changed)
    index = await QdrantIndex.reach(settings, identity)
    try:
        yield index
    finally:
        await index.close()
        client = connect(settings)
        for name in (settings.qdrant_collection, f"{settings.qdrant_collection}_state"):
            await client.delete_collection(name)
        await client.close()


async def reached(server: QdrantServer, identity: Identity = IDENTITY, **changed: Any) -> QdrantIndex:
    """An index on a server of the tests, with some settings changed."""
    settings = Settings(index="qdrant", qdrant_url=server.url, **({"qdrant_read_timeout_s": 2.0} | changed))
    return await QdrantIndex.reach(settings, identity)


def some(count: int, **payload: Any) -> list[Point]:
    """Points on the axes of the space."""
    return [Point(point_id(n), AXES[n % 4], payload) for n in range(count)]
