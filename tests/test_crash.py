"""What was acknowledged survives kill -9; a second server on the folder is refused and harms nothing."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from serving import scan, serving

from nearcase.client import AddItem, AddResult, Client
from nearcase.errors import NearcaseError

pytestmark = pytest.mark.system
ROUNDS = 3
ENOUGH = 12


def test_kill_during_add_loses_nothing_acknowledged(tmp_path: Path) -> None:
    acknowledged: dict[str, str] = {}
    for round_number in range(ROUNDS):
        with serving(tmp_path) as server, Client(server.address) as client:
            for result in until_killed(client, round_number, server.process):
                acknowledged[result.request_id] = result.case_id
    assert len(acknowledged) >= ROUNDS * ENOUGH
    with serving(tmp_path) as server, Client(server.address) as client:
        found = {case.case_id: case for case in client.cases()}
        assert set(acknowledged.values()) <= set(found)
        again = list(client.add(items(0)))
        assert not [result for result in again if result.error]
        known = {result.request_id for result in again if result.outcome == "unchanged"}
        assert {request_id for request_id in acknowledged if request_id.startswith("0-")} <= known
        for case in found.values():
            assert client.search(case_id=case.case_id, k=1, own_patient=True).hits[0].similarity > 0.9999


def until_killed(client: Client, round_number: int, process: subprocess.Popen[str]) -> Iterator[AddResult]:
    """Yields what was acknowledged before the server was killed in the middle of the stream."""
    count = 0
    try:
        for result in client.add(items(round_number)):
            assert result.error is None
            yield result
            count += 1
            if count == ENOUGH:
                threading.Thread(target=process.kill).start()  # the stream goes on while it dies
    except NearcaseError:
        return


def items(round_number: int) -> list[AddItem]:
    return [AddItem(f"{round_number}-{seed}", scan(1000 * round_number + seed)) for seed in range(60)]


def test_a_second_server_is_refused_in_words_and_the_first_is_unharmed(tmp_path: Path) -> None:
    with serving(tmp_path) as server, Client(server.address) as client:
        assert not [result for result in client.add(items(0)[:5]) if result.error]
        command = [sys.executable, "-m", "nearcase", "serve", "--data", str(tmp_path), "--listen", "127.0.0.1:0"]
        second = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert second.returncode == 1
        assert len(second.stderr.strip().splitlines()) == 1
        assert "has this library open" in second.stderr
        assert not [result for result in client.add(items(1)[:5]) if result.error]
        assert client.erase(case_id=next(client.cases()).case_id) == 1
        assert client.statistics().case_count == 9
    with serving(tmp_path) as server, Client(server.address) as client:
        assert client.statistics().case_count == 9


def test_sigterm_lets_a_stream_in_progress_finish(tmp_path: Path) -> None:
    with serving(tmp_path) as server, Client(server.address) as client:
        results = []
        for number, result in enumerate(client.add(items(0)[:30])):
            results.append(result)
            if number == 0:
                server.process.terminate()
        assert [result.error for result in results] == [None] * 30
        assert server.process.wait(timeout=20) == 0
    with serving(tmp_path) as server, Client(server.address) as client:
        assert client.statistics().case_count == 30
