"""A real server in a process of its own, for the demo."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from nearcase.errors import Unready

START_LIMIT_S = 60.0
STOP_LIMIT_S = 30.0


@dataclass(frozen=True, slots=True)
class RunningServer:
    """Where it listens, and the process."""

    address: str
    process: subprocess.Popen[str]


@contextmanager
def running_server(data: Path, *options: str) -> Iterator[RunningServer]:
    """Runs `nearcase serve` on a free port of this machine; on leaving it gets SIGTERM and time to drain.

    Raises:
        Unready: It did not become ready; the message holds its last line.
    """
    command = [sys.executable, "-m", "nearcase", "serve", "--data", str(data), "--listen", "127.0.0.1:0", "--json"]
    process = subprocess.Popen(  # noqa: S603 (our own command, no shell)
        [*command, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ.copy()
    )
    try:
        yield RunningServer(_wait_ready(process), process)
    finally:
        process.terminate()
        try:
            process.communicate(timeout=STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def _wait_ready(process: subprocess.Popen[str]) -> str:
    if process.stdout is None or process.stderr is None:
        raise ValueError("expected a process with pipes")
    end_s = time.monotonic() + START_LIMIT_S
    while time.monotonic() < end_s and process.poll() is None:
        if select.select([process.stdout], [], [], 0.1)[0]:
            line = process.stdout.readline()
            ready = json.loads(line) if line.strip() else {}
            if "address" in ready:  # a server that can not start says why in another object
                return str(ready["address"])
    process.kill()
    last = process.stderr.read().strip().splitlines()
    raise Unready(f"the server did not start: {last[-1] if last else 'it said nothing'}")
