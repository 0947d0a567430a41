"""Audit trails for tests, and a disk of their own to fill."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from nearcase.audit.event import CALL, AuditEvent
from nearcase.audit.key import AuditKey
from nearcase.audit.query import records_in
from nearcase.audit.trail import open_trail
from nearcase.clock import SystemClock

KEY = AuditKey.of(bytes(range(32)))


def event(number: int, **more: object) -> AuditEvent:
    """A call of that number."""
    return replace(AuditEvent(CALL, 1.9e9 + number, request_id=f"r{number}", rpc="v1.S/Search"), **more)  # type: ignore[arg-type]


def made_trail(place: Path) -> Path:
    """A trail of 30 calls, with the key that a server makes; returns its folder."""
    folder = place / "audit"
    chain = open_trail(folder, None, SystemClock()).chain
    chain.append([event(number) for number in range(30)])
    chain.close()
    return folder


def written(folder: Path) -> list[str]:
    """The calls that a trail tells of."""
    return [kept.event.request_id for kept in records_in(folder) if kept.event.kind == CALL]


@contextmanager
def small_disk(place: Path) -> Iterator[Path]:
    """A disk of its own, of 2 MiB."""
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small disk needs root and the right to mount")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def fill(place: Path) -> Path:
    """Fills a disk with one file; returns it."""
    ballast = place / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    return ballast
