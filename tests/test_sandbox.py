"""The sandbox: right answers from good children, one typed error from bad ones, and nothing left behind."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import sandbox_jobs

from nearcase.errors import InvalidInput, NearcaseError, NotFound, Overloaded, Unready
from nearcase.intake import wire
from nearcase.intake.sandbox import Sandbox


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(sandbox_jobs.act, workers=1, wall_s=1.0, cpu_s=5, memory_bytes=256 << 20, result_bytes=1 << 20) as one:
        yield one


def ask(sandbox: Sandbox, do: str, data: bytes = b"abcdef", **options: Any) -> dict[str, Any]:
    result, _ = sandbox.run(data, {"do": do, **options})
    return result


def is_running(pid: int) -> bool:
    """False for a process that has ended, reaped or not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def wait_until_gone(pid: int, within_s: float) -> None:
    end = time.monotonic() + within_s
    while is_running(pid):
        assert time.monotonic() < end, "the child outlived its server"
        time.sleep(0.01)


@pytest.mark.parametrize("size", [0, 1, 3, 65_536, 65_537, 1_000_000 // 2])
def test_bytes_of_any_size_come_back_as_they_went(sandbox: Sandbox, size: int) -> None:
    data = random.Random(size).randbytes(size)
    result, blobs = sandbox.run(data, {"do": "echo", "text": "Ünï", "list": [1, None, True, 2.5]})
    assert blobs == [data, b"", data[:3]]
    assert result["options"]["text"] == "Ünï"
    assert result["options"]["list"] == [1, None, True, 2.5]


def test_what_the_caller_does_meanwhile_takes_no_time_of_its_own(sandbox: Sandbox) -> None:
    start_s = time.monotonic()
    sandbox.run(b"", {"do": "sleep", "seconds": 0.3}, meanwhile=lambda: time.sleep(0.3))
    assert 0.3 <= time.monotonic() - start_s < 0.55


def test_a_fault_of_the_caller_meanwhile_leaves_no_half_read_child(sandbox: Sandbox) -> None:
    def fail() -> None:
        raise KeyError

    with pytest.raises(KeyError):
        sandbox.run(b"", {"do": "echo", "text": "first"}, meanwhile=fail)
    assert ask(sandbox, "echo", text="second")["options"]["text"] == "second"


def test_a_frame_goes_in_one_piece_so_that_the_other_side_is_woken_once() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        wire.send(ours, {"size": 1}, (0, 1))
        piece, descriptors, _, _ = socket.recv_fds(theirs, 4096, 2)
        for descriptor in descriptors:
            os.close(descriptor)
    assert len(descriptors) == 2
    assert piece == len(piece[4:]).to_bytes(4, "big") + b'{"size": 1}'


def test_the_job_keeps_its_error_type_reason_and_field(sandbox: Sandbox) -> None:
    with pytest.raises(NotFound, match=r"^no such thing$") as caught:
        ask(sandbox, "refuse")
    assert (caught.value.reason, caught.value.field) == ("NO_SUCH_THING", "image")


def test_a_fault_of_the_job_crosses_without_its_text(sandbox: Sandbox) -> None:
    with pytest.raises(NearcaseError) as caught:
        ask(sandbox, "fault")
    assert type(caught.value) is NearcaseError
    assert str(caught.value) == "the sandboxed job failed with KeyError"


def lie(body: str) -> dict[str, Any]:
    return {"do": "lie", "words": len(body).to_bytes(4, "big").decode("latin-1") + body}


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "hangs": ({"do": "sleep"}, "DECODE_LIMIT"),
    "spins": ({"do": "spin"}, "DECODE_LIMIT"),
    "takes memory": ({"do": "allocate", "bytes": 1 << 30}, "DECODE_LIMIT"),
    "recurses": ({"do": "recurse"}, "DECODE_LIMIT"),
    "segfaults": ({"do": "crash"}, "DECODE_CRASH"),
    "aborts": ({"do": "crash", "signal": int(signal.SIGABRT)}, "DECODE_CRASH"),
    "exits": ({"do": "leave"}, "DECODE_CRASH"),
    "answers with half a frame": ({"do": "lie", "words": "\x00\x00\x10\x00{"}, "DECODE_LIMIT"),
    "answers with a huge length": ({"do": "lie", "words": "\xff\xff\xff\xff"}, "DECODE_CRASH"),
    "answers with garbage": (lie("nope"), "DECODE_CRASH"),
    "answers with no object": (lie("[]"), "DECODE_CRASH"),
    "answers with no sizes": (lie("{}"), "DECODE_CRASH"),
    "answers with a bad size": (lie('{"result": {}, "sizes": [1e300]}'), "DECODE_CRASH"),
    "answers with a size below 0": (lie('{"result": {}, "sizes": [-1]}'), "DECODE_CRASH"),
    "answers with too large a size": (lie('{"result": {}, "sizes": [1048577]}'), "DECODE_CRASH"),
    "answers with NaN": (lie('{"result": {"a": NaN}, "sizes": []}'), "DECODE_CRASH"),
    "answers with a bad error": (lie('{"error": [1]}'), "DECODE_CRASH"),
    "answers with deep JSON": (lie('{"a":' * 50_000), "DECODE_CRASH"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_child_costs_one_typed_error_and_nothing_else(sandbox: Sandbox, kind: str) -> None:
    options, reason = BAD[kind]
    before = time.monotonic()
    with pytest.raises(InvalidInput) as caught:
        sandbox.run(b"abc", options)
    assert time.monotonic() - before < 5
    assert caught.value.reason == reason
    assert "\n" not in str(caught.value)
    assert ask(sandbox, "echo")["size"] == 6


def test_processor_time_is_limited_by_itself() -> None:
    with Sandbox(sandbox_jobs.act, workers=1, wall_s=30, cpu_s=1) as strict:
        for _ in range(2):  # the limit holds for each job, not for the child's whole life
            with pytest.raises(InvalidInput, match="1 s of processor time"):
                ask(strict, "spin")


def test_results_over_the_bound_and_nan_are_faults(sandbox: Sandbox) -> None:
    for do in ("too_much", "not_a_number"):
        with pytest.raises(NearcaseError):
            ask(sandbox, do, bytes=2 << 20)
        assert ask(sandbox, "echo")["size"] == 6


def test_a_child_can_not_pull_the_result_from_under_the_server(sandbox: Sandbox) -> None:
    result, blobs = sandbox.run(b"x", {"do": "shrink"})
    assert result["truncated"] == 1  # the input, which the server never reads again
    assert blobs == [b"still here"]


def test_an_error_can_not_smuggle_control_characters() -> None:
    with (
        Sandbox(sandbox_jobs.act, workers=1) as fresh,
        pytest.raises(InvalidInput, match=r"^a\[2Jb$"),
    ):
        fresh.run(b"", lie('{"error": ["InvalidInput", "a\\u001b[2Jb\\u0000", "X", ""]}'))


def test_children_see_no_secrets_and_leave_no_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEARCASE_QDRANT_API_KEY", "4711")
    with Sandbox(sandbox_jobs.act, workers=1) as fresh:
        result = ask(fresh, "surroundings")
    assert "4711" not in str(result["environment"])
    assert result["descriptors"] <= 7  # three standard ones, the socket, the two files, the listing itself
    assert result["core_bytes"] == 0


def test_chatter_reaches_nobody(sandbox: Sandbox, capfd: pytest.CaptureFixture[str]) -> None:
    assert ask(sandbox, "chatter") == {}
    captured = capfd.readouterr()
    assert "4711" not in captured.out + captured.err


def test_barred_modules_are_not_imported() -> None:
    with Sandbox(sandbox_jobs.act, workers=1, barred=("wave",)) as fresh:
        with pytest.raises(InvalidInput, match="not here"):
            ask(fresh, "barred", module="wave")
        assert ask(fresh, "barred", module="colorsys") == {}


def test_an_old_child_goes_on_until_another_has_started() -> None:
    with Sandbox(sandbox_jobs.act, workers=1, jobs_per_worker=3) as short_lived:
        old = {ask(short_lived, "echo")["pid"] for _ in range(4)}
        assert len(old) == 1
        assert len(set(short_lived.pids)) == 2
        new = next_pid(short_lived, *old)
        assert set(short_lived.pids) == {new}
        assert not any(map(is_running, old))


def test_a_child_outlives_its_heir_and_is_followed_when_it_dies_first() -> None:
    with Sandbox(sandbox_jobs.act, workers=1, jobs_per_worker=3) as short_lived:
        (old,) = {ask(short_lived, "echo")["pid"] for _ in range(3)}
        (heir,) = set(short_lived.pids) - {old}
        os.kill(heir, signal.SIGKILL)
        wait_until_gone(heir, 5)
        assert {ask(short_lived, "echo")["pid"] for _ in range(4)} == {old}, "it goes another round"
        (heir,) = set(short_lived.pids) - {old}
        os.kill(old, signal.SIGKILL)
        wait_until_gone(old, 5)
        assert next_pid(short_lived, old) == heir


def next_pid(sandbox: Sandbox, before: int) -> int:
    end = time.monotonic() + 20
    while time.monotonic() < end:
        pid: int = ask(sandbox, "echo")["pid"]
        if pid != before:
            return pid
    raise AssertionError("no other child took over")


def test_a_child_that_died_in_idleness_is_replaced_unseen(sandbox: Sandbox) -> None:
    pid = ask(sandbox, "echo")["pid"]
    os.kill(pid, signal.SIGKILL)
    wait_until_gone(pid, 5)
    assert ask(sandbox, "echo")["pid"] != pid


def test_children_ignore_the_signals_of_a_terminal_and_a_supervisor(sandbox: Sandbox) -> None:
    pid = ask(sandbox, "echo")["pid"]
    os.kill(pid, signal.SIGINT)
    os.kill(pid, signal.SIGTERM)
    assert ask(sandbox, "echo")["pid"] == pid


def test_many_threads_get_their_own_answers() -> None:
    with Sandbox(sandbox_jobs.act, workers=2, wall_s=5, jobs_per_worker=20) as shared:

        def one(number: int) -> bool:
            data = random.Random(number).randbytes(number * 997)
            if number % 25 == 7:
                with pytest.raises(InvalidInput):
                    ask(shared, "crash")
            return shared.run(data, {"do": "echo"})[1][0] == data

        with ThreadPoolExecutor(8) as threads:
            assert all(threads.map(one, range(100)))
        assert 2 <= len(shared.pids) <= 4, "each may have an heir"


def test_waiting_for_a_child_is_bounded() -> None:
    with Sandbox(sandbox_jobs.act, workers=1, wall_s=5, wait_s=0.2) as small:
        small.wait_ready()
        with ThreadPoolExecutor(1) as threads:
            first = threads.submit(ask, small, "sleep", seconds=1.5)
            time.sleep(0.3)
            with pytest.raises(Overloaded):
                ask(small, "echo")
            assert "pid" in first.result()


def test_closing_ends_children_and_calls() -> None:
    sandbox = Sandbox(sandbox_jobs.act, workers=1, wall_s=30)
    sandbox.wait_ready()
    pids = sandbox.pids
    outcomes: list[BaseException] = []

    def call() -> None:
        try:
            ask(sandbox, "sleep")
        except BaseException as error:
            outcomes.append(error)

    threads = [threading.Thread(target=call) for _ in range(3)]  # one runs, two wait
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    sandbox.close()
    for thread in threads:
        thread.join(5)
    assert [type(outcome) for outcome in outcomes] == [Unready] * 3
    assert not any(is_running(pid) for pid in pids)
    assert sandbox.pids == ()
    with pytest.raises(Unready):
        ask(sandbox, "echo")


def test_children_are_reaped(sandbox: Sandbox) -> None:
    for _ in range(3):
        with pytest.raises(InvalidInput):
            ask(sandbox, "crash")
    children = subprocess.run(["ps", "-o", "stat=", "--ppid", str(os.getpid())], capture_output=True, text=True)
    assert not [line for line in children.stdout.split() if line.startswith("Z")]


@pytest.mark.parametrize("do", ["sleep", "spin", "echo"])
def test_children_die_with_a_killed_server(do: str) -> None:
    """Idle, asleep in a job, or spinning with the interpreter locked."""
    program = (
        "import sys, threading; sys.path[:0] = sys.argv[2:]\n"
        "import sandbox_jobs; from nearcase.intake.sandbox import Sandbox\n"
        "sandbox = Sandbox(sandbox_jobs.act, workers=1, wall_s=60, cpu_s=60)\n"
        "sandbox.run(b'', {})\n"
        "threading.Thread(target=sandbox.run, args=(b'', {'do': sys.argv[1]})).start()\n"
        "print(*sandbox.pids, flush=True)\n"
        "threading.Event().wait()\n"
    )
    command = [sys.executable, "-c", program, do, *(path for path in sys.path if path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        pid = int(server.stdout.readline())
        time.sleep(0.2)
        assert is_running(pid)
        server.kill()
        server.wait()
        wait_until_gone(pid, 2)


def test_a_job_that_can_not_be_imported_is_refused() -> None:
    with pytest.raises(ValueError, match="top of a module"):
        Sandbox(lambda data, options: ({}, []))


def test_a_child_that_can_not_start_is_said_so() -> None:
    def stranger(data: bytes, options: dict[str, Any]) -> tuple[dict[str, Any], list[bytes]]:
        return {}, []

    stranger.__qualname__ = "absent"
    stranger.__module__ = "no_such_module"
    with Sandbox(stranger, workers=1) as broken, pytest.raises(Unready, match="does not start"):
        broken.run(b"")
