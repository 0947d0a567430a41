"""Jobs for test_sandbox: good ones, and every way to be bad. Children import this module, so it stays light."""

from __future__ import annotations

import importlib
import os
import resource
import signal
import sys
import time
from typing import Any

from nearcase.errors import InvalidInput, NotFound

JsonObject = dict[str, Any]
Result = tuple[JsonObject, list[bytes]]


def act(data: bytes, options: JsonObject) -> Result:
    """Does what options["do"] says."""
    result: Result = globals()[options.get("do", "echo")](data, options)
    return result


def echo(data: bytes, options: JsonObject) -> Result:
    return {"size": len(data), "pid": os.getpid(), "options": options}, [data, b"", data[:3]]


def surroundings(data: bytes, options: JsonObject) -> Result:
    descriptors = [name for name in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{name}")]
    core_bytes = resource.getrlimit(resource.RLIMIT_CORE)[0]
    return {"environment": dict(os.environ), "descriptors": len(descriptors), "core_bytes": core_bytes}, []


def niceness(data: bytes, options: JsonObject) -> Result:
    return {"nice": os.getpriority(os.PRIO_PROCESS, 0)}, []


def chatter(data: bytes, options: JsonObject) -> Result:
    os.write(1, b"codec says 4711\n")
    os.write(2, b"codec says 4711\n")
    print("codec says 4711", file=sys.stderr)
    return {}, []


def refuse(data: bytes, options: JsonObject) -> Result:
    raise NotFound("no such\nthing", reason="NO_SUCH_THING", field="image")


def fault(data: bytes, options: JsonObject) -> Result:
    raise KeyError("Doe^Jane 4711")


def sleep(data: bytes, options: JsonObject) -> Result:
    time.sleep(options.get("seconds", 60))
    return {"pid": os.getpid()}, []


def spin(data: bytes, options: JsonObject) -> Result:
    while True:
        pass


def allocate(data: bytes, options: JsonObject) -> Result:
    return {"size": len(bytearray(options["bytes"]))}, []


def crash(data: bytes, options: JsonObject) -> Result:
    os.kill(os.getpid(), options.get("signal", signal.SIGSEGV))
    return {}, []


def leave(data: bytes, options: JsonObject) -> Result:
    os._exit(0)


def not_a_number(data: bytes, options: JsonObject) -> Result:
    return {"value": float("nan")}, []


def too_much(data: bytes, options: JsonObject) -> Result:
    return {}, [bytes(options["bytes"])]


def recurse(data: bytes, options: JsonObject) -> Result:
    return recurse(data, options)


def barred(data: bytes, options: JsonObject) -> Result:
    try:
        importlib.import_module(options["module"])
    except ImportError:
        raise InvalidInput("not here") from None
    return {}, []


def lie(data: bytes, options: JsonObject) -> Result:
    """Writes its own words on the wire, as a child does whose decoder was taken over."""
    for descriptor in range(3, 64):
        try:
            os.write(descriptor, options["words"].encode("latin-1"))
        except OSError:
            continue
    time.sleep(60)
    return {}, []


def shrink(data: bytes, options: JsonObject) -> Result:
    """Tries to pull the result file from under the server."""
    outcomes = []
    for descriptor in range(3, 64):
        try:
            os.ftruncate(descriptor, 0)
            outcomes.append(descriptor)
        except OSError:
            continue
    return {"truncated": len(outcomes)}, [b"still here"]
