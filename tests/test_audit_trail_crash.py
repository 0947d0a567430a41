"""The audit trail when things end badly: kill -9 in mid-write, torn lines, a full disk."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from auth_files import HandClock
from trail_files import KEY, event, fill, small_disk, written

from nearcase.audit.chain import AuditChain
from nearcase.audit.files import files_in
from nearcase.audit.head import NAME as HEAD
from nearcase.audit.query import records_in
from nearcase.audit.recovery import ASIDE
from nearcase.audit.reserve import NAME as RESERVE
from nearcase.audit.verify import verify


@pytest.mark.parametrize("cut", [1, 10, 200])
def test_a_torn_last_line_is_set_aside_and_told(tmp_path: Path, cut: int) -> None:
    chain = AuditChain.open(tmp_path, KEY, HandClock())
    chain.append([event(number) for number in range(5)])
    whole = files_in(tmp_path)[0].path.read_bytes()
    head = (tmp_path / HEAD).read_bytes()
    chain.append([event(5)])
    chain.close()
    path = files_in(tmp_path)[0].path
    path.write_bytes(path.read_bytes()[:-cut])  # as a crash leaves it: the line is cut, and the head does not count it
    (tmp_path / HEAD).write_bytes(head)
    assert verify(tmp_path, KEY).is_sound
    torn = path.read_bytes()[len(whole) :]
    chain = AuditChain.open(tmp_path, KEY, HandClock())
    chain.append([event(6)])
    chain.close()
    assert verify(tmp_path, KEY).is_sound
    assert written(tmp_path) == ["r0", "r1", "r2", "r3", "r4", "r6"]
    (aside,) = tmp_path.glob(f"{ASIDE}-*")
    assert aside.read_bytes() == torn
    assert [kept.event.kind for kept in records_in(tmp_path)][-2:] == ["torn", "call"]


def test_a_record_that_the_head_does_not_count_yet_counts(tmp_path: Path) -> None:
    chain = AuditChain.open(tmp_path, KEY, HandClock())
    chain.append([event(0)])
    head = (tmp_path / HEAD).read_bytes()
    chain.append([event(1)])
    chain.close()
    (tmp_path / HEAD).write_bytes(head)
    assert verify(tmp_path, KEY).is_sound
    chain = AuditChain.open(tmp_path, KEY, HandClock())
    chain.append([event(2)])
    chain.close()
    assert written(tmp_path) == ["r0", "r1", "r2"]
    assert verify(tmp_path, KEY).is_sound


WRITER = """
import sys
from pathlib import Path
from nearcase.audit.chain import AuditChain
from nearcase.audit.event import CALL, AuditEvent
from nearcase.audit.key import AuditKey
from nearcase.clock import SystemClock
chain = AuditChain.open(Path(sys.argv[1]), AuditKey.of(bytes(range(32))), SystemClock(), file_bytes=20_000)
number = int(sys.argv[2])
while True:
    chain.append([AuditEvent(CALL, 1.9e9, request_id=f"r{number + more}", detail="x" * 300) for more in range(3)])
    number += 3
    print(number, flush=True)
"""


def test_kill_in_mid_write_loses_nothing_acknowledged(tmp_path: Path) -> None:
    folder, acknowledged = tmp_path / "audit", 0
    chance = random.Random(3)
    for _ in range(6):
        command = [sys.executable, "-c", WRITER, str(folder), str(acknowledged)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout
            for _ in range(chance.randrange(20, 120)):
                acknowledged = int(process.stdout.readline())
            process.send_signal(signal.SIGKILL)
            rest = process.stdout.read().split()
            acknowledged = int(rest[-1]) if rest else acknowledged
        assert verify(folder, KEY).is_sound
        assert {f"r{number}" for number in range(acknowledged)} <= set(written(folder))
    AuditChain.open(folder, KEY, HandClock()).close()
    assert verify(folder, KEY).is_sound


# A full disk


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk") as place:
        yield place


def test_a_full_disk_is_told_in_the_trail_and_it_goes_on_when_there_is_room(disk: Path) -> None:
    folder = disk / "audit"
    chain = AuditChain.open(folder, KEY, HandClock(), file_bytes=10_000)
    chain.append([event(0)])
    ballast = fill(disk)
    kept = 1

    def until_full(number: int) -> int:
        with suppress(OSError):
            while True:
                chain.append([event(number, detail="x" * 900)])
                number += 1
        return number

    kept = until_full(kept)
    assert not (folder / RESERVE).exists()
    kinds = [kept.event.kind for kept in records_in(folder)]
    assert kinds[-1] == "full"
    assert verify(folder, KEY).is_sound
    for _ in range(3):
        with pytest.raises(OSError, match="space"):
            chain.append([event(kept)])
    assert [each.event.kind for each in records_in(folder)] == kinds
    ballast.unlink()
    chain.append([event(1000)])
    chain.close()
    last = [each.event for each in records_in(folder)][-2:]
    assert [each.kind for each in last] == ["resumed", "call"]
    assert last[0].count == 4
    assert (folder / RESERVE).exists()
    assert written(folder) == [*(f"r{number}" for number in range(kept)), "r1000"]
    assert verify(folder, KEY).is_sound
