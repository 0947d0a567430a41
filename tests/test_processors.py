"""How many processors the server takes for its own, and which of its work gives way to which."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import sandbox_jobs
from numpy.typing import NDArray
from tiny_encoders import tiny_encoder

from nearcase.clock import SystemClock
from nearcase.encode.batcher import Batcher
from nearcase.encode.card import Card, read_card
from nearcase.intake.sandbox import Sandbox
from nearcase.processors import BUILDING, WORKING, give_way, processor_count

linux = pytest.mark.skipif(sys.platform != "linux", reason="threads have nice values of their own on Linux only")
ALL = processor_count(Path("/nowhere"))


@pytest.mark.parametrize(
    ("share", "count"),
    [
        ("max 100000", ALL),
        ("50000 100000", 1),
        ("100000 100000", 1),
        ("100001 100000", min(ALL, 2)),
        ("9900000 100000", ALL),
    ],
)
def test_a_share_of_the_time_counts(tmp_path: Path, share: str, count: int) -> None:
    (tmp_path / "cpu.max").write_text(share + "\n")
    assert processor_count(tmp_path) == count


@pytest.mark.parametrize(("quota_us", "count"), [(-1, ALL), (100_000, 1), (10_000, 1), (900_000_000, ALL)])
def test_so_it_does_in_the_first_version_of_control_groups(tmp_path: Path, quota_us: int, count: int) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text(str(quota_us))
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000")
    assert processor_count(tmp_path) == count


@pytest.mark.parametrize("words", ["", "max", "a b", "1 0 1"])
def test_words_that_are_no_share_bound_nothing(tmp_path: Path, words: str) -> None:
    (tmp_path / "cpu.max").write_text(words)
    assert processor_count(tmp_path) == ALL


@linux
def test_a_process_that_is_bound_to_one_processor_counts_one() -> None:
    one = min(os.sched_getaffinity(0))
    code = "from nearcase.processors import processor_count; print(processor_count())"
    bind = f"import os; os.sched_setaffinity(0, {{{one}}}); "
    assert subprocess.check_output([sys.executable, "-c", bind + code], text=True) == "1\n"


@linux
def test_only_the_thread_that_asks_gives_way() -> None:
    found: list[int] = []

    def work() -> None:
        give_way(WORKING)
        give_way(BUILDING)  # no further than the system goes
        found.append(nice())

    before = nice()
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert (found, nice()) == ([19], before)


class NiceEncoder:
    """Its embeddings say how nice the thread is that makes them."""

    runtime = "a test"

    def __init__(self, card: Card) -> None:
        self.card = card

    def embed(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.full((len(batch), 1), nice(), dtype=np.float32)


@linux
async def test_encoding_gives_way_to_answering(tmp_path: Path) -> None:
    encoder = NiceEncoder(read_card(tiny_encoder(tmp_path / "encoder", "tiny", seed=1)))
    batcher = Batcher(encoder, SystemClock(), max_batch=1, lanes=1, max_waiting=4)
    batcher.start()
    found = await batcher.embed(np.zeros((32, 32, 3), np.uint8))
    await batcher.close()
    assert found.embedding[0] == min(19, nice() + WORKING)


@linux
def test_decoding_gives_way_too() -> None:
    with Sandbox(sandbox_jobs.act, workers=1) as sandbox:
        found, _ = sandbox.run(b"x", {"do": "niceness"})
    assert found == {"nice": min(19, nice() + WORKING)}


def nice() -> int:
    return os.getpriority(os.PRIO_PROCESS, 0)
