"""What runs inside a sandboxed child: limits on itself first, then one job after another.

The child is assumed to be hostile once it has touched hostile bytes, so nothing here is trusted by the server: the
server holds the wall clock, copies results out of a sealed file, and takes errors as words only. The limits here
stop honest decoders that were led astray.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import math
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable

from nearcase.errors import InvalidInput, NearcaseError
from nearcase.intake import wire
from nearcase.intake.wire import JsonObject
from nearcase.processors import WORKING, give_way

Job = Callable[[bytes, JsonObject], tuple[JsonObject, list[bytes]]]

_MAX_OPEN_FILES = 64
_LIBRARY_BYTES = 512 << 20  # address space that shared libraries may still map; not writable memory
_MAX_MESSAGE_CHARACTERS = 500


def main(descriptor: int) -> None:
    """Serves jobs from the socket until the server closes it; standard input is the server's lifeline."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the server decides when children stop, not the terminal
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a supervisor signals whole groups; a drain still needs us
    _die_with_server()
    give_way(WORKING)
    sock = socket.socket(fileno=descriptor)
    with contextlib.suppress(wire.BrokenWireError):
        setup = wire.receive(sock)
        for name in setup["barred"]:
            sys.modules[name] = None  # type: ignore[assignment]  # importing it now raises ImportError
        job = _job(setup["module"], setup["name"])
        _limit(setup["memory_bytes"], setup["result_bytes"])
        wire.send(sock, {"ready": True})
        while True:
            _serve_one(sock, job, setup["cpu_s"])


def _die_with_server() -> None:
    """Has the kernel end this process when the server's end of the lifeline closes, however the server died.

    A signal, not a thread that waits: a decoder that hangs inside C code with the interpreter locked dies too.
    """
    fcntl.fcntl(sys.stdin.fileno(), fcntl.F_SETOWN, os.getpid())
    flags = fcntl.fcntl(sys.stdin.fileno(), fcntl.F_GETFL)
    fcntl.fcntl(sys.stdin.fileno(), fcntl.F_SETFL, flags | os.O_ASYNC)


def _job(module: str, name: str) -> Job:
    job: Job = getattr(importlib.import_module(module), name)
    return job


def _limit(memory_bytes: int, result_bytes: int) -> None:
    mapped_bytes = _mapped_bytes()
    resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
    address_bytes = mapped_bytes + memory_bytes + _LIBRARY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (address_bytes, address_bytes))
    resource.setrlimit(resource.RLIMIT_FSIZE, (result_bytes, result_bytes))
    resource.setrlimit(resource.RLIMIT_NOFILE, (_MAX_OPEN_FILES, _MAX_OPEN_FILES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold a patient's image
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as score:
        score.write("1000")  # when the machine runs out of memory, a decoder goes before the server


def _mapped_bytes() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[0]) * resource.getpagesize()


def _serve_one(sock: socket.socket, job: Job, cpu_s: int) -> None:
    request, (data_file, result_file) = wire.receive_with_descriptors(sock, 2)
    try:
        _allow_cpu(cpu_s)
        reply = _answer(job, data_file, result_file, request)
    finally:
        os.close(data_file)
        os.close(result_file)
    wire.send(sock, reply)


def _allow_cpu(cpu_s: int) -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    soft_s = math.ceil(used.ru_utime + used.ru_stime) + cpu_s
    resource.setrlimit(resource.RLIMIT_CPU, (soft_s, resource.RLIM_INFINITY))  # past it: SIGXCPU, which ends us


def _answer(job: Job, data_file: int, result_file: int, request: JsonObject) -> JsonObject:
    try:
        data = _read(data_file, request["size"])
        result, blobs = job(data, request["options"])
        return {"result": result, "sizes": _write(result_file, blobs)}
    except NearcaseError as error:
        return _words(error)
    except (MemoryError, RecursionError) as error:
        return _words(InvalidInput(f"reading this file ended in {type(error).__name__}", reason="DECODE_LIMIT"))
    except Exception as error:
        # A fault of ours: its text may hold patient data, so only its kind leaves this process.
        return _words(NearcaseError(f"the sandboxed job failed with {type(error).__name__}"))


def _read(descriptor: int, size: int) -> bytes:
    data = os.pread(descriptor, size, 0)
    if len(data) != size:
        raise OSError("the input file is shorter than announced")
    return data


def _write(descriptor: int, blobs: list[bytes]) -> list[int]:
    offset = 0
    for blob in blobs:
        view = memoryview(blob).cast("B")
        while view:
            written = os.pwrite(descriptor, view, offset)
            view = view[written:]
            offset += written
    return [memoryview(blob).nbytes for blob in blobs]


def _words(error: NearcaseError) -> JsonObject:
    message = str(error)[:_MAX_MESSAGE_CHARACTERS]
    return {"error": [type(error).__name__, message, error.reason, error.field]}
