"""The library's lock: one owner, named to whoever is refused, and never left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from nearcase.index.lock import FolderLock

OWNER = """
import sys, time
from pathlib import Path
from nearcase.index.lock import FolderLock
lock = FolderLock(Path(sys.argv[1]))
print(lock.take(4711), flush=True)
time.sleep(60)
"""


def start_owner(folder: Path) -> subprocess.Popen[str]:
    owner = subprocess.Popen([sys.executable, "-c", OWNER, str(folder)], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    assert owner.stdout.readline() == "True\n"
    return owner


def end(owner: subprocess.Popen[str]) -> None:
    owner.kill()
    owner.communicate()


def test_one_owner_at_a_time_even_in_one_process(tmp_path: Path) -> None:
    first, second = FolderLock(tmp_path), FolderLock(tmp_path)
    assert first.take(os.getpid(), patience_s=0)
    assert not second.take(os.getpid(), patience_s=0)
    first.release()
    assert second.take(os.getpid(), patience_s=0)
    second.release()
    second.release()


def test_the_refused_learn_who_the_owner_is(tmp_path: Path) -> None:
    owner = start_owner(tmp_path)
    refused = FolderLock(tmp_path)
    try:
        assert not refused.take(os.getpid(), patience_s=0)
        assert refused.owner() == "pid 4711"
    finally:
        end(owner)


def test_an_owner_on_another_host_is_named_with_it(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("12 elsewhere\n", encoding="utf-8")
    assert FolderLock(tmp_path).owner() == "pid 12 on elsewhere"


def test_kill_9_lets_go(tmp_path: Path) -> None:
    owner = start_owner(tmp_path)
    os.kill(owner.pid, signal.SIGKILL)
    owner.communicate()
    lock = FolderLock(tmp_path)
    assert lock.take(os.getpid(), patience_s=0)
    assert lock.owner() == f"pid {os.getpid()}"
    lock.release()


def test_waits_for_an_owner_that_is_about_to_go(tmp_path: Path) -> None:
    first, second = FolderLock(tmp_path), FolderLock(tmp_path)
    assert first.take(os.getpid(), patience_s=0)
    leaving = threading.Timer(0.2, first.release)
    leaving.start()
    started = time.monotonic()
    assert second.take(os.getpid(), patience_s=10)
    assert 0.15 < time.monotonic() - started < 5
    leaving.join()
    second.release()


def test_children_of_the_owner_do_not_inherit_it(tmp_path: Path) -> None:
    lock = FolderLock(tmp_path)
    assert lock.take(os.getpid(), patience_s=0)
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], close_fds=False)
    try:
        lock.release()
        again = FolderLock(tmp_path)
        assert again.take(os.getpid(), patience_s=1)  # the kernel closes its copy a moment after the start
        again.release()
    finally:
        child.kill()
        child.wait()


def test_an_unsigned_lock_still_has_an_owner(tmp_path: Path) -> None:
    (tmp_path / "lock").touch()
    assert FolderLock(tmp_path).owner() == "pid unknown"
