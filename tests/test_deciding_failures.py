"""No decision without its record, whatever the disk does; and a client that goes leaves nothing behind."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import grpc
import pytest
from serving import scan, serving, serving_here

from nearcase.client import AddItem, Client
from nearcase.errors import Unready
from nearcase.serve.records import Records
from nearcase.v1 import decision_pb2, decision_pb2_grpc

pytestmark = pytest.mark.system
QUERY = scan(99, "Q")


def fill(client: Client) -> None:
    items = [AddItem(str(n), scan(n, f"P{n}"), labels={"mass": str(n % 2), "clip": "no"}) for n in range(4)]
    assert not [result.error for result in client.add(items) if result.error]


def kept(data: Path) -> list[Path]:
    return [path for path in (data / "records").rglob("*") if path.is_file()]


FULL = """
import resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_records import record_naming
from nearcase.decide.record_file import write_sealed
from nearcase.errors import Unready
from nearcase.serve.records import Records
records = Records(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
try:
    records.keep([write_sealed(record_naming(1))])
except Unready as error:
    print(error.reason)
"""


def test_a_disk_that_takes_no_more_keeps_no_half_of_a_record(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FULL, str(tmp_path), str(Path(__file__).parent)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "RECORD_NOT_KEPT\n"), done.stderr
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_folder_of_records_that_is_none_gives_no_decision(tmp_path: Path) -> None:
    with serving(tmp_path) as server, Client(server.address) as client:
        fill(client)
        (tmp_path / "records").write_text("not a folder")
        with pytest.raises(Unready) as refused:
            client.decide(QUERY, finding="mass")
        assert refused.value.reason == "RECORD_NOT_KEPT"
        (tmp_path / "records").unlink()
        assert client.decide(QUERY, finding="mass").decisions[0].record_id


def test_what_can_not_be_removed_is_said(tmp_path: Path) -> None:
    (tmp_path / "parts" / "left").mkdir(parents=True)
    with pytest.raises(Unready, match="half written") as refused:
        Records(tmp_path)
    assert refused.value.reason == "RECORD_NOT_KEPT"


async def test_clients_that_vanish_leave_no_half_of_a_decision(tmp_path: Path) -> None:
    async with serving_here(tmp_path) as app, grpc.aio.insecure_channel(app.address) as channel:
        with Client(app.address) as client:
            await asyncio.to_thread(fill, client)
        stub = decision_pb2_grpc.DecisionServiceStub(channel)
        for wait_ms in range(0, 60, 3):
            call = stub.Decide(decision_pb2.DecideRequest(image=QUERY))
            await asyncio.sleep(wait_ms / 1e3)
            call.cancel()
        answer = await stub.Decide(decision_pb2.DecideRequest(image=QUERY), timeout=30)
        assert {decision.finding for decision in answer.decisions} == {"clip", "mass"}
        for decision in answer.decisions:
            assert (tmp_path / "records" / decision.record_id[:2] / f"{decision.record_id}.json").is_file()
    assert not [path for path in kept(tmp_path) if path.suffix != ".json"]
