"""Erasing so that it can be proven, and so that it stays erased.

First what is meant is written down as hashes, then the index deletes and rewrites, what was erased is searched for
again, decision records are blotted out, and the certificate is written. What cuts this short, a crash or a full disk,
is made good later, at the latest when the server starts again. A mark in the library's own folder names the last
erasure that the library has seen: an older copy of that folder has an older mark, and gets those since then again.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import tempfile
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nearcase.errors import NearcaseError, Unready
from nearcase.index.filters import Filter, In
from nearcase.retrieve.cases import patient_key
from nearcase.retrieve.ledger import Intent, Ledger
from nearcase.retrieve.unbroken import Unbroken
from nearcase.types import Case, Erasure

if TYPE_CHECKING:
    from nearcase.clock import Clock
    from nearcase.retrieve.library import Library

Blot = Callable[[Callable[[str], bool]], int]
"""Blots out of all records, or removes, what a test says is erased (ids, SHA-256 of images); returns how many."""

_FIELDS = {"instance": "instance_uid", "series": "series_uid", "study": "study_uid"}
MOST_AHEAD_S = 86400.0
"""A case that seems to have been added later than now, by less than this, moves the time of its erasure: the clock was
set back a little since. By more it does not, or all cases of its patient until then would count as erased."""

log = logging.getLogger(__name__)


class Journal:
    """The ledger and the mark, for all tenants; one change at a time."""

    def __init__(self, ledger: Ledger, mark: Path) -> None:
        self.ledger, self._mark = ledger, mark
        self._lock = asyncio.Lock()

    @classmethod
    def open(cls, file: Path, mark: Path) -> Journal:
        """Returns the journal.

        Raises:
            Unready: The ledger is damaged, or it is gone although the library has seen one.
        """
        try:
            has_seen = mark.exists() and bool(mark.read_text(encoding="utf-8").strip())
        except (OSError, ValueError) as error:
            raise Unready(f"the mark of erasures {mark} can not be read", reason="DISK") from error
        if has_seen and (not file.exists() or not (ledger := Ledger.open(file)).last_id):
            message = f"expected the ledger of erasures at {file}, where this library had one; restore it"
            raise Unready(message, reason="LEDGER_DAMAGED")
        return cls(ledger if has_seen else Ledger.open(file), mark)

    async def write(self, change: Callable[[], None]) -> None:
        """Makes one change of the ledger, off the event loop."""
        async with self._lock:
            await asyncio.to_thread(change)

    async def seen(self) -> None:
        """Moves the mark to the end of the ledger."""
        async with self._lock:
            await asyncio.to_thread(_write_mark, self._mark, self.ledger.last_id)

    def unseen(self) -> list[Intent]:
        """Returns the erasures that this copy of the library has not seen."""
        return self.ledger.since(self._mark.read_text(encoding="utf-8").strip() if self._mark.exists() else "")


class Erasures:
    """The erasures of one tenant's library."""

    def __init__(self, journal: Journal, tenant: str, library: Library, blot: Blot, clock: Clock) -> None:
        self._journal, self._tenant, self._library = journal, tenant, library
        self._blot, self._clock = blot, clock
        self._unbroken = Unbroken()
        self._alone = asyncio.Lock()
        self._unfinished: list[Intent] = []
        self._known: dict[str, float] = {}  # hash -> when what has it was erased
        self._learn(*journal.ledger.since(""))

    async def erase(self, where: Filter, target: str) -> Erasure | None:
        """Returns the certificate once nothing is left; None where nothing matched.

        Args:
            where: Which cases.
            target: What that names: case, instance, series, study, patient or retention.

        Raises:
            Unready: The ledger, the index or a record could not be written; what is begun is ended later.
        """
        return await self._unbroken.run(self._erase(where, target))

    def is_erased(self, case: Case) -> bool:
        """Returns whether a case was erased here after it was added to the library that it comes from."""
        if not self._known:
            return False
        keys = self._journal.ledger.keys_of(self._tenant, case)
        return any(self._was_there(case, self._known[key]) for key in keys if key in self._known)

    @property
    def last_at_s(self) -> float:
        """When something was last erased here, in seconds since 1970; 0 for never."""
        return self._journal.ledger.last_at_s

    def certificates(self) -> list[Erasure]:
        """Returns what was erased, newest first."""
        return self._journal.ledger.erasures(self._tenant)

    async def finish(self, intents: Sequence[Intent] = ()) -> None:
        """Ends erasures that were cut short, those given and those of this run.

        Raises:
            Unready: It can not be done now either.
        """
        self._unfinished += intents
        await self._unbroken.run(self._finish())

    async def _finish(self) -> None:
        async with self._alone:
            await self._finish_all()

    async def _finish_all(self) -> None:
        for intent in tuple(self._unfinished):
            self._learn(intent)
            left = await self._library.matching(None, self._is_meant(intent))
            removal = await self._library.erase(In("case_id", tuple(left)), _nothing_to_write) if left else None
            is_rewritten = removal.is_rewritten if removal else await self._library.rewrite()
            found = len(await self._library.matching(None, self._is_meant(intent)))
            records = await asyncio.to_thread(self._blot, self._is_named(intent))
            await self._end(intent, len(intent.cases), records, is_rewritten, found)
            self._unfinished.remove(intent)

    async def replay(self) -> int:
        """Erases again what an older copy of the library brought back, and returns how many cases that was."""
        back = await self._library.matching(None, self.is_erased)
        erasure = await self.erase(In("case_id", tuple(back)), "replay") if back else None
        return erasure.case_count if erasure else 0

    async def settled(self) -> None:
        """Returns when no erasure is in progress."""
        await self._unbroken.settled()

    async def _erase(self, where: Filter, target: str) -> Erasure | None:
        async with self._alone:
            await self._finish_all()
            return await self._erase_one(where, target)

    async def _erase_one(self, where: Filter, target: str) -> Erasure | None:
        begun: list[Intent] = []
        try:
            removal = await self._library.erase(where, functools.partial(self._intend, target, begun))
            if removal is None:
                return None
            names = {name for case in removal.cases for name in (case.case_id, case.content_sha256) if name}
            records = await asyncio.to_thread(self._blot, names.__contains__)
            count, found = len(removal.cases), removal.found_again_count
            return await self._end(begun[0], count, records, removal.is_rewritten, found)
        except NearcaseError:
            await self._keep_or_drop(begun)
            raise

    async def _intend(self, target: str, begun: list[Intent], cases: Sequence[Case]) -> None:
        intent = self._intent(cases, target)
        await self._journal.write(functools.partial(self._journal.ledger.intend, intent))
        begun.append(intent)
        self._learn(intent)  # before anything is gone: an import that waits for this must not bring it back

    async def _end(self, intent: Intent, cases: int, records: int, is_rewritten: bool, found: int) -> Erasure:
        erasure = Erasure(intent.erasure_id, self._clock.now_s(), intent.target, cases, records, is_rewritten, found)
        await self._journal.write(functools.partial(self._journal.ledger.finish, erasure))
        await self._journal.seen()
        log.info("erased %d cases (%s); %d found again", cases, intent.target, found)
        return erasure

    async def _keep_or_drop(self, begun: Sequence[Intent]) -> None:
        """A refusal that left every case where it was is forgotten; what is half done is to be ended."""
        for intent in begun:
            try:
                left = await self._library.matching(None, self._is_meant(intent))
            except NearcaseError:
                left = []
            if len(left) == len(intent.cases):
                await self._journal.write(functools.partial(self._journal.ledger.drop, intent.erasure_id))
                self._known.clear()
                self._learn(*self._journal.ledger.since(""), *self._unfinished)
            else:
                self._unfinished.append(intent)

    def _intent(self, cases: Sequence[Case], target: str) -> Intent:
        hashed, now_s = self._journal.ledger.hashed, self._clock.now_s()
        named = sorted({_named(case, target) for case in cases} - {""})
        return Intent(
            erasure_id=str(uuid.uuid4()),
            tenant=self._tenant,
            target=target,
            at_s=max([now_s, *(case.added_at_s for case in cases if case.added_at_s <= now_s + MOST_AHEAD_S)]),
            keys=tuple(hashed(self._tenant, target, value) for value in named),
            cases=tuple(hashed(self._tenant, "case", case.case_id) for case in cases),
            images=tuple(sorted({hashed(self._tenant, "image", case.content_sha256) for case in cases})),
        )

    def _is_meant(self, intent: Intent) -> Callable[[Case], bool]:
        hashes, keys_of = frozenset((*intent.keys, *intent.cases)), self._journal.ledger.keys_of
        return lambda case: self._was_there(case, intent.at_s) and not hashes.isdisjoint(keys_of(self._tenant, case))

    def _was_there(self, case: Case, erased_at_s: float) -> bool:
        """A time of adding far ahead of the clock is a wrong clock's: it does not say that the case came later."""
        return case.added_at_s <= erased_at_s or case.added_at_s > self._clock.now_s() + MOST_AHEAD_S

    def _is_named(self, intent: Intent) -> Callable[[str], bool]:
        hashes, hashed = frozenset((*intent.cases, *intent.images)), self._journal.ledger.hashed
        return lambda name: any(hashed(self._tenant, kind, name) in hashes for kind in ("case", "image"))

    def _learn(self, *intents: Intent) -> None:
        for intent in intents:
            if intent.tenant == self._tenant:
                for key in (*intent.keys, *intent.cases):
                    self._known[key] = max(intent.at_s, self._known.get(key, 0.0))


def _named(case: Case, target: str) -> str:
    """What of the case was named; "" where the cases themselves were."""
    if target == "patient":
        return patient_key(case.facts.patient_id, case.facts.patient_id_issuer)
    return str(getattr(case.facts, _FIELDS[target])) if target in _FIELDS else ""


async def _nothing_to_write(cases: Sequence[Case]) -> None:
    """The intent is in the ledger already."""


def _write_mark(mark: Path, erasure_id: str) -> None:
    try:
        mark.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, part = tempfile.mkstemp(prefix=".mark-", dir=mark.parent)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(erasure_id + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(part, mark)
    except OSError as error:
        raise Unready(f"the mark of erasures can not be written: {error.strerror}", reason="DISK") from error
