"""Parts of a server die under load, its disk fills or refuses, its clock jumps: nothing acknowledged is lost.

Every refusal is an announced one, and health tells the truth within 5 s. docs/operations.md says what each looks like.

Others break one part at a time: test_crash (the server itself), test_health (what hangs), test_qdrant_library (Qdrant
goes away), test_auth_tls (certificates change), test_edge_kill and test_edge_shards (the index alone).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from serving import scan, serving
from steady import TELLS_S, lost, steady

from nearcase.client import Client
from nearcase.errors import NearcaseError, Unready

pytestmark = pytest.mark.system

DECODER, INDEX, BUILDER = b"nearcase.intake.child", b"nearcase.index.edge.process", b"nearcase.index.edge.builder"
DISK_MIB, FREE_MIB = 1200, 200
FAKETIME = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
YEARS_S = 10 * 365 * 86400


def children(server: int, kind: bytes) -> list[int]:
    """The processes of a kind that a server started."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == server and kind in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except (OSError, ValueError, IndexError):
            continue  # no process, or it ended
    return found


def kill(pids: list[int]) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


def checked(address: str) -> int:
    """The exit code of `nearcase check --health`."""
    command = [sys.executable, "-m", "nearcase", "check", "--health", address]
    return subprocess.run(command, capture_output=True, timeout=60).returncode


# Children


@pytest.mark.parametrize("rounds", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_children_that_are_killed_cost_one_call_each(tmp_path: Path, rounds: int) -> None:
    with serving(tmp_path) as server, Client(server.address) as client:
        with steady(server.address) as seen:
            for _ in range(rounds):
                for kind in (DECODER, INDEX):
                    seen.until(lambda kind=kind: bool(children(server.process.pid, kind)))  # type: ignore[misc]
                    kill(children(server.process.pid, kind))
                    time.sleep(0.2)
                    seen.goes_on()
                kill(children(server.process.pid, DECODER) + children(server.process.pid, INDEX))
                seen.goes_on()
            assert checked(server.address) == 0
        told = {reason for _, reason in seen.refusals}
        assert told <= {"DECODE_CRASH", "INDEX_PROCESS_ENDED", "SANDBOX_UNREADY", "CASE_NOT_FOUND"}
        assert len(seen.refusals) <= rounds * 12  # each costs what was in it, and no more
        assert lost(client, seen) == set()
    with serving(tmp_path) as server, Client(server.address) as client:
        assert lost(client, seen) == set()


def test_an_erasure_ends_though_its_builder_is_killed(tmp_path: Path) -> None:
    with serving(tmp_path) as server, Client(server.address) as client, steady(server.address) as seen:
        case_id = next(iter(seen.acknowledged.values()))
        done: list[int] = []
        eraser = threading.Thread(target=lambda: done.append(client.erase(case_id=case_id)))
        eraser.start()
        killed = 0
        while eraser.is_alive():
            if builders := children(server.process.pid, BUILDER) if killed < 2 else []:
                kill(builders)
                killed += len(builders)
            time.sleep(0.01)
        assert killed
        assert done == [1]
        seen.goes_on()
        del seen.acknowledged[next(key for key, value in seen.acknowledged.items() if value == case_id)]
        assert lost(client, seen) == set()


# Disks


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    mount("-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", str(place))
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def mount(*words: str) -> None:
    if os.geteuid() != 0 or subprocess.run(["mount", *words], capture_output=True).returncode:
        pytest.skip("mounting a small disk needs root and the right to mount")


def fill(file: Path, left_mib: int) -> None:
    """Takes room until so much is left."""
    place = os.statvfs(file.parent)
    free = place.f_bavail * place.f_frsize - left_mib * 2**20
    descriptor = os.open(file, os.O_CREAT | os.O_RDWR)
    os.posix_fallocate(descriptor, 0, free)
    os.close(descriptor)


def test_a_full_disk_refuses_adding_first_and_loses_nothing(
    disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The audit trail is on another disk, as the manual says."""
    monkeypatch.setenv("NEARCASE_AUDIT_FOLDER", str(tmp_path / "audit"))
    with serving(disk / "data") as server, Client(server.address) as client:
        with steady(server.address) as seen:
            fill(disk / "ballast", FREE_MIB)
            seen.until(lambda: "DISK_FULL" in seen.reasons("add"), TELLS_S)
            client.decide(scan(1))  # the reserve is what decisions and erasures need
            fill(disk / "more", 0)
            answered = seen.answers
            seen.until(lambda: seen.answers > answered + 10)
            with pytest.raises(Unready) as refused:
                client.decide(scan(1))
            assert refused.value.reason == "RECORD_NOT_KEPT"
            assert seen.reasons("search") == set()
            assert seen.is_ready  # for searches it is; adding tells by its reason
            (disk / "more").unlink()
            (disk / "ballast").unlink()
            seen.goes_on()
            client.decide(scan(1))
            assert seen.reasons("add") == {"DISK_FULL"}
            fill(disk / "ballast", FREE_MIB)
        server.process.kill()
        server.process.wait()
    with serving(disk / "data") as server, Client(server.address) as client:  # a full disk does not stop the start
        assert lost(client, seen) == set()
        assert client.search(scan(1), k=1).hits


def test_a_volume_that_becomes_read_only_is_told_and_comes_back(
    disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mounted over by itself: the kernel does not make a disk read-only that has files open for writing."""
    monkeypatch.setenv("NEARCASE_AUDIT_FOLDER", str(tmp_path / "audit"))
    data = disk / "data"
    with serving(data) as server, Client(server.address) as client:
        with steady(server.address) as seen:
            mount("--bind", str(data), str(data))
            try:
                mount("-o", "remount,ro,bind", str(data))
                seen.until(lambda: "READ_ONLY" in seen.reasons("add"), TELLS_S)
                answered = seen.answers
                seen.until(lambda: seen.answers > answered + 10)
                assert seen.reasons("search") == set()
                with pytest.raises(Unready) as refused:
                    client.decide(scan(1))
                assert refused.value.reason == "RECORD_NOT_KEPT"
                with pytest.raises(Unready) as refused:
                    client.erase(case_id=next(iter(seen.acknowledged.values())))
                assert refused.value.reason in ("READ_ONLY", "DISK")
            finally:
                subprocess.run(["umount", "-l", str(data)], check=True)
            seen.goes_on()
            assert seen.reasons("add") <= {"READ_ONLY", "DISK"}
        assert lost(client, seen) == set()


# Clocks


def jump(file: Path, seconds: int) -> None:
    """Sets the server's clock off by so much, at once."""
    part = file.with_suffix(".part")
    part.write_text(f"{seconds:+d}\n")
    part.replace(file)


def has_added_at(client: Client, at_s: float) -> bool:
    """Whether a case was added by that clock, give or take an hour."""
    return any(abs(case.added_at_s - at_s) < 3600 for case in client.cases())


@pytest.mark.skipif(not FAKETIME, reason="libfaketime is not installed: apt-get install faketime")
def test_a_clock_that_jumps_both_ways_harms_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock of the wall alone, as NTP or a person sets it; no duration is told by it."""
    file = tmp_path / "clock"
    jump(file, 0)
    settings = {
        "LD_PRELOAD": str(FAKETIME[0]),
        "FAKETIME_TIMESTAMP_FILE": str(file),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "NEARCASE_RETENTION_DAYS": "30",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    with serving(tmp_path / "data") as server, Client(server.address) as client:
        for name in settings:
            monkeypatch.delenv(name)
        with steady(server.address) as seen:
            before = dict(seen.acknowledged)
            for seconds in (YEARS_S, -YEARS_S, 0):
                jump(file, seconds)
                seen.until(lambda seconds=seconds: has_added_at(client, time.time() + seconds))  # type: ignore[misc]
                seen.goes_on()
            assert seen.refusals == []
            assert all(is_ready for _, is_ready in seen.health)
            with pytest.raises(NearcaseError) as refused:  # cases of a time that has not come: nothing is erased by age
                client.library.erase(older_than_days=1)
            assert refused.value.reason == "CLOCK"
        assert before
        assert lost(client, seen) == set()
