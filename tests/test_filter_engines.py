"""Filters mean the same everywhere: 2,000 random ones over one data set, by the oracle, the engine and the adapter."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from qdrant_indexes import in_memory
from strategies import DATES, LISTS, NUMBERS, OF_ALL, WORDS, filters, point_id

from nearcase.index.base import Index, JsonValue, Point
from nearcase.index.edge.index import EdgeIndex
from nearcase.index.exact import ExactIndex
from nearcase.index.fields import FIELDS, FieldKind
from nearcase.index.filters import Filter, matches

POINTS = 60
DIMENSION = 4
EXAMPLES, FILTERS = 500, 4

Engines = tuple[asyncio.Runner, list[Index], list[Point]]


def made_points() -> list[Point]:
    """Each field absent, null or filled, lists of none to three values; the same in every run."""
    rng = random.Random(5)
    axes = np.eye(DIMENSION, dtype=np.float32)
    return [
        Point(point_id(n), axes[n % DIMENSION], {name: _value(rng, name) for name in OF_ALL if rng.random() < 0.7})
        for n in range(POINTS)
    ]


def _value(rng: random.Random, name: str) -> JsonValue:
    if name in LISTS:
        return rng.choices(WORDS, k=rng.randrange(4))
    if rng.random() < 0.1:
        return None
    if FIELDS[name] is FieldKind.KEYWORD:
        word = rng.choice(WORDS)
        return word.upper() if name in ("modality", "sex") else word
    return rng.choice(DATES if FIELDS[name] is FieldKind.INTEGER else NUMBERS)


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engines]:
    stored = made_points()
    with asyncio.Runner() as runner:
        indexes: list[Index] = [
            ExactIndex(DIMENSION),
            runner.run(EdgeIndex.open(tmp_path_factory.mktemp("edge"), DIMENSION)),
            runner.run(in_memory()),
        ]
        for index in indexes:
            runner.run(index.upsert(stored))
        yield runner, indexes, stored
        for index in indexes:
            runner.run(index.close())


async def found_by(index: Index, where: Filter) -> tuple[list[str], int]:
    page = await index.scroll(limit=POINTS, where=where)
    return [record.point_id for record in page.records], await index.count(where)


@settings(
    max_examples=EXAMPLES,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    phases=[Phase.generate, Phase.shrink],
)
@given(asked=st.lists(filters(tenants=True), min_size=FILTERS, max_size=FILTERS))
def test_every_engine_finds_what_the_filter_means(engines: Engines, asked: list[Filter]) -> None:
    runner, indexes, stored = engines
    for where in asked:
        meant = sorted(point.point_id for point in stored if matches(where, point.payload))
        for index in indexes:
            assert runner.run(found_by(index, where)) == (meant, len(meant)), type(index).__name__
