"""One sandboxed child as the server sees it: started, asked, killed, reaped."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from nearcase import errors
from nearcase.errors import InvalidInput, NearcaseError, Unready
from nearcase.intake import wire
from nearcase.intake.wire import JsonObject

Result = tuple[JsonObject, list[bytes]]

_BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[2]);"
    "from nearcase.intake.child import main; main(int(sys.argv[1]))"
)
# Secrets of the server's environment stay with the server. One thread each: the pool is the parallelism.
# A film's buffers are reused within a child, since fresh pages cost more than the arithmetic on them (17 ms against 21
# with half as much, for 6 MB); an idle child keeps at most 64 MiB of them.
_ENVIRONMENT = {
    "LC_ALL": "C.UTF-8",
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(64 << 20),
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}
_KINDS = {
    kind.__name__: kind
    for kind in (
        errors.InvalidInput,
        errors.Unsupported,
        errors.NotFound,
        errors.NotAllowed,
        errors.Overloaded,
        errors.Unready,
    )
}
_MAX_WORD_CHARACTERS = 1000
_KEPT_BYTES = 16 << 20
"""Of the file that carries jobs to a child: its pages are used again, a larger job's are given back."""
_MAX_BLOBS = 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """What one job may use of one child."""

    wall_s: float
    cpu_s: int
    memory_bytes: int
    result_bytes: int
    start_s: float = 60.0  # a cold disk and a busy machine; measured 0.3 s warm


class Worker:
    """A child process that runs one job at a time; not safe in threads, its pool hands it to one at a time.

    Args:
        job: A function at the top of an importable module.
        limits: What one job may use.
        barred: Modules that the child must not import.
    """

    def __init__(self, job: Callable[..., object], limits: Limits, barred: tuple[str, ...]) -> None:
        self.jobs_done = 0
        self.heir: Worker | None = None  # starts while this one goes on
        self._limits = limits
        self._starting = threading.Lock()  # the pool and a caller may both wait for readiness
        self._ready = False
        self._spoiled = False
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = _start(theirs.fileno())
        self._data_file = os.memfd_create("nearcase-input")
        self._sock = ours
        setup = {"module": job.__module__, "name": job.__qualname__, "barred": list(barred), "cpu_s": limits.cpu_s}
        sizes = {"memory_bytes": limits.memory_bytes, "result_bytes": limits.result_bytes}
        with contextlib.suppress(OSError):  # a child that is already dead shows when it is asked
            wire.send(ours, setup | sizes)

    @property
    def is_usable(self) -> bool:
        """False once the child has ended, or was left in the middle of a job, or ran into a limit."""
        return not self._spoiled and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._process.pid

    @property
    def has_started(self) -> bool:
        """Whether wait_ready would not block."""
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        return self._ready or bool(poll.poll(0))

    def wait_ready(self) -> None:
        """Blocks until the child has imported its job.

        Raises:
            Unready: It ended first, or took longer than limits.start_s.
        """
        with self._starting:
            if self._ready:
                return
            try:
                wire.receive(self._sock, deadline_s=time.monotonic() + self._limits.start_s)
            except (wire.BrokenWireError, TimeoutError):
                self._spoiled = True
                self.kill()
                raise Unready("the sandboxed worker process does not start", reason="SANDBOX_UNREADY") from None
            self._ready = True

    def ask(self, data: bytes, options: JsonObject, meanwhile: Callable[[], object]) -> Result:
        """Runs the job on data in the child; blocks for at most limits.wall_s.

        Args:
            data: The job's input.
            options: What the job is told besides.
            meanwhile: Called here while the child works; what it takes counts against limits.wall_s.

        Raises:
            NearcaseError: What the job raised; or InvalidInput when the child died, hung or passed a limit, after which
                the worker is not usable.
        """
        deadline_s = time.monotonic() + self._limits.wall_s
        _fill(self._data_file, data)
        result_file = _sealed_file(self._limits.result_bytes)
        try:
            request, files = {"size": len(data), "options": options}, (self._data_file, result_file)
            return self._exchange(request, files, deadline_s, meanwhile)
        finally:
            os.close(result_file)
            if len(data) > _KEPT_BYTES:
                os.ftruncate(self._data_file, 0)

    def kill(self) -> None:
        """Ends the child at once and reaps it; harmless when it is already gone, and safe from any thread."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """Ends the child and closes what led to it; only for the thread that holds this worker."""
        self.kill()
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._sock.close()
        os.close(self._data_file)

    def _exchange(
        self, request: JsonObject, files: tuple[int, int], deadline_s: float, meanwhile: Callable[[], object]
    ) -> Result:
        self._spoiled = True  # until a whole answer is here
        try:
            self._sock.settimeout(self._limits.wall_s)
            wire.send(self._sock, request, files)
            meanwhile()
            reply = wire.receive(self._sock, deadline_s=deadline_s)
            answer = _parsed(reply, files[1], self._limits.result_bytes)
        except TimeoutError:
            self.kill()
            raise _too_much(f"{self._limits.wall_s:g} s") from None
        except (wire.BrokenWireError, OSError):
            raise self._death() from None
        self.jobs_done += 1
        if isinstance(answer, NearcaseError):
            self._spoiled = answer.reason == "DECODE_LIMIT"  # its memory may be in pieces
            raise answer
        self._spoiled = False
        return answer

    def _death(self) -> NearcaseError:
        """Says why the child is gone, in words; a child that only babbles is killed for it."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(0.2)
        code = self._process.poll()
        self.kill()
        if code == -signal.SIGXCPU:
            return _too_much(f"{self._limits.cpu_s} s of processor time")
        return InvalidInput("reading this file made its decoder crash", reason="DECODE_CRASH")


def _start(descriptor: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-I", "-c", _BOOT, str(descriptor), json.dumps(sys.path)]
    environment = _ENVIRONMENT | {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
    return subprocess.Popen(  # noqa: S603 - our own interpreter and words only
        command,
        stdin=subprocess.PIPE,  # the lifeline: it closes when this process dies, even by kill -9
        stdout=subprocess.DEVNULL,  # codecs' own messages may hold patient data
        stderr=subprocess.DEVNULL,
        env=environment,
        pass_fds=(descriptor,),
        start_new_session=True,
    )


def _fill(descriptor: int, data: bytes) -> None:
    """Writes a job over the last one; what that left behind it, the child has seen anyway."""
    view, offset = memoryview(data), 0
    while offset < len(data):
        offset += os.pwrite(descriptor, view[offset:], offset)


def _sealed_file(size: int) -> int:
    """A file of zeros that takes no memory until written, and that the child can neither grow nor shrink."""
    descriptor = os.memfd_create("nearcase-result", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, size)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    return descriptor


def _parsed(reply: JsonObject, result_file: int, result_bytes: int) -> Result | NearcaseError:
    if "error" in reply:
        return _error(reply["error"])
    result, sizes = reply.get("result"), reply.get("sizes")
    if not isinstance(result, dict) or not isinstance(sizes, list) or len(sizes) > _MAX_BLOBS:
        raise wire.BrokenWireError
    if any(type(size) is not int or size < 0 for size in sizes) or sum(sizes) > result_bytes:
        raise wire.BrokenWireError
    blobs, offset = [], 0
    for size in sizes:
        blobs.append(os.pread(result_file, size, offset))
        offset += size
    return result, blobs


def _error(words: object) -> NearcaseError:
    if not isinstance(words, list) or len(words) != 4 or not all(isinstance(word, str) for word in words):
        raise wire.BrokenWireError
    kind, message, reason, field = (_plain(word) for word in words)
    return _KINDS.get(kind, NearcaseError)(message, reason=reason, field=field)


def _plain(word: str) -> str:
    return "".join(character for character in word[:_MAX_WORD_CHARACTERS] if character.isprintable())


def _too_much(limit: str) -> InvalidInput:
    return InvalidInput(f"reading this file took more than {limit}", reason="DECODE_LIMIT")
