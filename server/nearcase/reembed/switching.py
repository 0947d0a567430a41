"""Puts the new library in the place of the old one, in one step of the file system.

    1. Both are opened and read: the new one must still be what the report says, and hold the old one's cases.
    2. Both are locked, and must not have been opened since.
    3. `library` and `library.next` change their names with each other: renameat2(RENAME_EXCHANGE), which the kernel
       does whole or not at all.
    4. `library.next`, which is the old library now, becomes `library.before-TIME`.

A crash before 3 has done nothing. A crash between 3 and 4 leaves a whole new library and the old one under a name that
the next call puts right.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from nearcase.errors import InvalidInput, NotAllowed, NotFound, Unready
from nearcase.exchange.messages import cases_from_proto, cases_to_proto
from nearcase.index.manifest import read_manifest
from nearcase.index.opening import open_index
from nearcase.reembed.report import Accepted, Side, read_report
from nearcase.retrieve.bulk import pages
from nearcase.retrieve.snapshot import Snapshot

if TYPE_CHECKING:
    from nearcase.index.base import Index
    from nearcase.types import Case

OLD, NEW = "library", "library.next"
LEAST_DIGEST = 12
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
_PAGE = 256


@dataclass(frozen=True, slots=True)
class Switched:
    """What was done."""

    kept: Path  # where the old library lies now
    encoder_identity: str  # of the library that is served from now on


async def accept(data: Path, digest: str, *, without_lost: bool, now: datetime) -> Switched:
    """Switches to the library that the report with this digest is about.

    Args:
        data: The data folder; no server runs on it.
        digest: The report's, or its first 12 characters or more.
        without_lost: Accept that cases without a new embedding are only in the library that is kept.
        now: For the name of the library that is kept.

    Raises:
        NotFound: There is no report, or no library that it is about.
        InvalidInput: The digest is of another report.
        NotAllowed: With reason NOT_SWITCHABLE: the report is not of the libraries as they are now, or cases are lost.
        Unready: A server has one of them open, or the file system can not exchange two folders.
    """
    report = read_report(data)
    if len(digest) < LEAST_DIGEST or not report.digest.startswith(digest.lower()):
        raise InvalidInput(f"expected the digest of the last report, it begins with {report.digest[:LEAST_DIGEST]}")
    kept = data / f"{OLD}.before-{now:%Y%m%dT%H%M%SZ}"
    if not _is_exchanged(data, report):
        _check(report, without_lost)
        await _exchange_checked(data, report, kept)
    os.rename(data / NEW, kept)
    _sync(data)
    return Switched(kept, report.new.encoder_identity)


def _check(report: Accepted, without_lost: bool) -> None:
    if report.changed_meanwhile:
        raise _refusal("the library changed while the report was made; build again, only what changed is embedded")
    if report.lost_count and not without_lost:
        raise _refusal(
            f"{report.lost_count} cases have no new embedding and would be in the old library alone; name more folders "
            "with --images, or accept it with --without-lost"
        )


def _is_exchanged(data: Path, report: Accepted) -> bool:
    """Whether an earlier call was cut short between the exchange and the last rename."""
    found = [_identity(data / name) for name in (OLD, NEW)]
    for name, identity in zip((OLD, NEW), found, strict=True):
        if identity is None:
            raise NotFound(f"expected the folder {name} in the data folder, found none", reason="NO_REPORT")
    return found == [report.new.encoder_identity, report.old.encoder_identity]


def _identity(folder: Path) -> str | None:
    manifest = read_manifest(folder) if folder.is_dir() else None
    return manifest.encoder_identity if manifest else None


async def _exchange_checked(data: Path, report: Accepted, kept: Path) -> None:
    async with _opened(data / OLD, report.old) as old, _opened(data / NEW, report.new) as new:
        await _compare(old, new, report)
        stamps = [_stamp(data / name) for name in (OLD, NEW)]
    with _locked(data / OLD, stamps[0]), _locked(data / NEW, stamps[1]):
        if kept.exists():
            raise Unready(f"{kept.name} is there already; try again in a second", reason="DISK")
        _exchange(data / OLD, data / NEW)
        _sync(data)


@asynccontextmanager
async def _opened(folder: Path, side: Side) -> AsyncIterator[Index]:
    index = await open_index(
        folder,
        dimension=side.dimension,
        encoder_identity=side.encoder_identity,
        pseudonym_check=side.pseudonym_check,
    )
    try:
        yield index
    finally:
        await index.close()


async def _compare(old: Index, new: Index, report: Accepted) -> None:
    """The new library is the reported one, and each of its cases is as it is in the old one now."""
    snapshot, lost = Snapshot(), 0
    mirror = _cases(new)
    following = await anext(mirror, None)
    async for case in _cases(old):
        if following is None or following.case_id > case.case_id:
            lost += 1
            continue
        if following != case:
            raise _refusal("the library changed since the report; start its server and build again")
        snapshot.add(case)
        following = await anext(mirror, None)
    if following is not None or lost != report.lost_count or snapshot.name != report.new.snapshot:
        raise _refusal("the libraries are not those of the report any more; start the server and build again")


async def _cases(index: Index) -> AsyncIterator[Case]:
    async for page in pages(index, page_size=_PAGE):
        for stored in cases_from_proto(cases_to_proto(page)):  # times to the microsecond, as the build got them
            yield stored.case


def _stamp(folder: Path) -> int:
    """When the library was last opened: its lock is written then, and only then."""
    return (folder / "lock").stat().st_mtime_ns


@contextmanager
def _locked(folder: Path, stamp: int) -> Iterator[None]:
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(descriptor).st_mtime_ns != stamp:
            raise _refusal("a server opened the library meanwhile; stop it and try again")
        yield
    except BlockingIOError:
        raise Unready(f"a server has {folder.name} open; stop it first", reason="LIBRARY_IN_USE") from None
    finally:
        os.close(descriptor)


def _exchange(one: Path, other: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    paths = os.fsencode(one), os.fsencode(other)
    try:
        failed = libc.renameat2(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], _RENAME_EXCHANGE)
    except AttributeError:
        raise _unable("this C library has no renameat2") from None
    if failed:
        raise _unable(os.strerror(ctypes.get_errno()))


def _unable(why: str) -> Unready:
    return Unready(f"the file system can not exchange two folders in one step: {why}; nothing was done", reason="DISK")


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _refusal(message: str) -> NotAllowed:
    return NotAllowed(message, reason="NOT_SWITCHABLE")
