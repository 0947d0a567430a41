"""Hostile files sent to a real server while others search: each costs its sender one line, and nobody anything else."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from dicom_files import CANARY
from hostile import HOSTILE
from serving import scan, serving

from nearcase.client import AddItem, Client
from nearcase.errors import InvalidInput, NearcaseError, Unsupported

pytestmark = pytest.mark.system

MOST_S = 10.0
MOST_CHILD_BYTES = 1 << 30
ATTACKERS = 3
LIBRARY_CASES = 12


@dataclass
class Attack:
    """What was seen of a server while hostile files arrived."""

    refusals: dict[str, NearcaseError] = field(default_factory=dict)
    answered: set[str] = field(default_factory=set)
    seconds: dict[str, float] = field(default_factory=dict)
    at_rest_s: list[float] = field(default_factory=list)
    under_attack_s: list[float] = field(default_factory=list)
    peak_bytes: dict[int, int] = field(default_factory=dict)  # by process id of a decoding child
    descendants: set[int] = field(default_factory=set)
    first_hits: set[tuple[str, ...]] = field(default_factory=set)
    health: list[str] = field(default_factory=list)
    stderr: str = ""
    exit_code: int | None = None


@pytest.fixture(scope="module")
def attack(tmp_path_factory: pytest.TempPathFactory) -> Attack:
    files = {kind: make() for kind, make in HOSTILE.items()}
    seen = Attack()
    with serving(tmp_path_factory.mktemp("library")) as server, Client(server.address) as client:
        scans = [AddItem(str(seed), scan(seed), source="a test") for seed in range(LIBRARY_CASES)]
        assert not [result for result in client.add(scans) if result.error]
        for _ in range(30):
            seen.at_rest_s.append(good_search(client, seen))
        over = threading.Event()
        watcher = threading.Thread(target=watch, args=(server.process.pid, over, seen))
        watcher.start()
        with ThreadPoolExecutor(ATTACKERS) as attackers:
            pending = [attackers.submit(send, server.address, kind, data, seen) for kind, data in files.items()]
            while not all(each.done() for each in pending):
                seen.under_attack_s.append(good_search(client, seen))
            for each in pending:
                each.result()
        over.set()
        watcher.join()
        good_search(client, seen)
        assert client.statistics().case_count >= LIBRARY_CASES
        server.process.terminate()
        _, seen.stderr = server.process.communicate(timeout=30)
        seen.exit_code = server.process.returncode
    return seen


def good_search(client: Client, seen: Attack) -> float:
    """Returns what one search takes whose answer every attack must leave as it is."""
    start = time.perf_counter()
    found = client.search(scan(500), k=3, where='source = "a test"')
    elapsed_s = time.perf_counter() - start
    seen.first_hits.add(tuple(hit.case.case_id for hit in found.hits))
    return elapsed_s


def send(address: str, kind: str, data: bytes, seen: Attack) -> None:
    """Searches with a hostile file, and adds it."""
    with Client(address) as client:
        for way, work in (("search", search), ("add", add)):
            start = time.perf_counter()
            error = work(client, data)
            seen.seconds[f"{way}: {kind}"] = time.perf_counter() - start
            if error is None:
                seen.answered.add(f"{way}: {kind}")
            else:
                seen.refusals[f"{way}: {kind}"] = error


def search(client: Client, data: bytes) -> NearcaseError | None:
    try:
        client.search(data, k=3)
    except NearcaseError as error:
        return error
    return None


def add(client: Client, data: bytes) -> NearcaseError | None:
    (result,) = client.add([AddItem("one", data)])
    return result.error


def watch(server_pid: int, over: threading.Event, seen: Attack) -> None:
    while not over.wait(0.02):
        for pid in descendants(server_pid):
            seen.descendants.add(pid)
            try:
                if b"intake.child" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    status = Path(f"/proc/{pid}/status").read_text()
            except (FileNotFoundError, ProcessLookupError):
                continue
            else:
                peak = [int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmHWM")]
                seen.peak_bytes[pid] = max([seen.peak_bytes.get(pid, 0), *peak])


def descendants(root: int) -> Iterator[int]:
    for task in Path(f"/proc/{root}/task").glob("*/children"):
        try:
            children = [int(word) for word in task.read_text().split()]
        except (FileNotFoundError, ProcessLookupError):
            continue
        for child in children:
            yield child
            yield from descendants(child)


def test_every_hostile_file_ends_in_an_answer_or_one_typed_line(attack: Attack) -> None:
    assert len(HOSTILE) >= 60
    assert len(attack.refusals) + len(attack.answered) == 2 * len(HOSTILE)
    for sent, error in attack.refusals.items():
        assert isinstance(error, InvalidInput | Unsupported), (sent, error)
        assert error.reason != "INTERNAL", sent
        assert str(error).isprintable(), sent
        assert CANARY not in str(error), sent


def test_each_ends_in_time(attack: Attack) -> None:
    slowest = max(attack.seconds, key=lambda sent: attack.seconds[sent])
    assert attack.seconds[slowest] <= MOST_S, slowest


def test_searches_stay_right_and_in_their_normal_time(attack: Attack) -> None:
    assert len(attack.first_hits) == 1
    assert len(attack.under_attack_s) >= 30
    normal_s, attacked_s = statistics.median(attack.at_rest_s), statistics.median(attack.under_attack_s)
    assert attacked_s <= 3 * normal_s + 0.05, f"median {attacked_s:.3f} s under attack, {normal_s:.3f} s at rest"


def test_no_decoder_takes_more_than_its_memory(attack: Attack) -> None:
    assert attack.peak_bytes
    assert max(attack.peak_bytes.values()) <= MOST_CHILD_BYTES


def test_the_server_says_nothing_of_it_and_leaves_nothing_behind(attack: Attack) -> None:
    assert attack.exit_code == 0
    assert attack.stderr == ""
    deadline = time.monotonic() + 5
    while left := [pid for pid in attack.descendants if is_running(pid)]:
        assert time.monotonic() < deadline, f"still running: {left}"
        time.sleep(0.1)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def refuse_constant(constant: str) -> object:
    raise AssertionError(f"{constant} is no JSON")


@pytest.mark.parametrize("kind", ["window of NaN", "patient name with NUL and line feeds", "unknown character set"])
def test_json_of_odd_files_is_json(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "odd.dcm"
    file.write_bytes(HOSTILE[kind]())
    command = [sys.executable, "-m", "nearcase", "inspect", str(file), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout, parse_constant=refuse_constant)["pixels"]["rows"] == 64
