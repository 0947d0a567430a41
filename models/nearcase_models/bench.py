"""What an encoder costs on this machine's CPU, by batch size."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from nearcase.encode.base import Encoder

LEAST_S = 0.5
"""A batch size is repeated until this has passed, and at least `repeats` times."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Medians over calls, for each image of the batch."""

    batch: int
    calls: int
    cpu_ms: float  # processor time of this process, all its threads
    wall_ms: float


def bench(
    encoder: Encoder,
    batches: Sequence[int],
    *,
    repeats: int = 5,
    on_batch: Callable[[int], object] = lambda batch: None,
) -> list[Cost]:
    """Returns the costs of noise images, after one call that nobody counts."""
    return [_cost(encoder, batch, repeats, on_batch) for batch in batches]


def _cost(encoder: Encoder, batch: int, repeats: int, on_batch: Callable[[int], object]) -> Cost:
    images = np.random.default_rng(7).random((batch, *encoder.card.recipe.input_shape), np.float32)
    encoder.embed(images)
    cpu_ms: list[float] = []
    wall_ms: list[float] = []
    began = time.perf_counter()
    while len(cpu_ms) < repeats or time.perf_counter() - began < LEAST_S:
        wall, cpu = time.perf_counter(), time.process_time()
        encoder.embed(images)
        cpu_ms.append((time.process_time() - cpu) * 1e3 / batch)
        wall_ms.append((time.perf_counter() - wall) * 1e3 / batch)
    on_batch(batch)
    return Cost(batch, len(cpu_ms), statistics.median(cpu_ms), statistics.median(wall_ms))
