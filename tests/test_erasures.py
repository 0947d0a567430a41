"""The ledger names nobody, loses nothing that was acknowledged, and ends what was begun."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from test_library import NOTHING, case, vector

from nearcase.clock import SystemClock
from nearcase.errors import Unready
from nearcase.index.base import Erased
from nearcase.index.exact import ExactIndex
from nearcase.index.filters import Equals
from nearcase.retrieve.erasures import Erasures, Journal
from nearcase.retrieve.ledger import Intent, Ledger
from nearcase.retrieve.library import Library
from nearcase.transfers import StoredCase
from nearcase.types import Erasure

P1 = Equals("patient_key", "|P1")


class StubbornIndex(ExactIndex):
    """Refuses to delete, or to rewrite, while it is told to."""

    def __init__(self, dimension: int) -> None:
        super().__init__(dimension)
        self.refuses = ""

    async def delete(self, where: object) -> int:
        if self.refuses == "delete":
            raise Unready("the disk is full")
        return await super().delete(where)  # type: ignore[arg-type]

    async def erase(self, point_ids: Sequence[str]) -> Erased:
        if self.refuses == "erase":
            raise Unready("the engine ended")
        return await super().erase(point_ids)


@dataclass(frozen=True)
class Opened:
    library: Library
    index: StubbornIndex
    erasures: Erasures
    journal: Journal
    blots: list[Callable[[str], bool]]


@asynccontextmanager
async def opened(folder: Path, index: StubbornIndex | None = None, tenant: str = "") -> AsyncIterator[Opened]:
    index = index or StubbornIndex(4)
    library, blots = Library(index, SystemClock()), []

    def blot(is_erased: Callable[[str], bool]) -> int:
        blots.append(is_erased)
        return 1

    library.start()
    journal = Journal.open(folder / "ledger.jsonl", folder / "mark")
    erasures = Erasures(journal, tenant, library, blot, SystemClock())
    await erasures.finish(journal.ledger.unfinished())
    yield Opened(library, index, erasures, journal, blots)
    await erasures.settled()
    # The index itself is left open: it is what the next start finds.


async def fill(parts: Opened, numbers: range = range(9)) -> None:
    for number in numbers:
        await parts.library.add(case(number), NOTHING, vector(number))


async def test_a_certificate_counts_and_names_nobody(tmp_path: Path) -> None:
    async with opened(tmp_path) as parts:
        await fill(parts)
        done = await parts.erasures.erase(P1, "patient")
        assert done is not None
        assert (done.case_count, done.record_count, done.found_again_count, done.target) == (3, 1, 0, "patient")
        assert parts.erasures.certificates() == [done]
        assert await parts.erasures.erase(P1, "patient") is None
        (is_erased,) = parts.blots
        assert is_erased(case(1).case_id)
        assert is_erased(case(4).content_sha256)
        assert not is_erased(case(2).case_id)
    text = (tmp_path / "ledger.jsonl").read_text()
    erased = [case(number) for number in (1, 4, 7)]
    for word in ("P1", *(each.case_id for each in erased), *(each.content_sha256 for each in erased)):
        assert word not in text
    assert Ledger.open(tmp_path / "ledger.jsonl").erasures("") == [done]
    assert (tmp_path / "ledger.jsonl").stat().st_mode & 0o077 == 0


async def test_two_ledgers_have_two_salts(tmp_path: Path) -> None:
    first, second = (Ledger.open(tmp_path / name) for name in ("a", "b"))
    assert first.hashed("", "patient", "|P1") != second.hashed("", "patient", "|P1")
    assert first.hashed("", "patient", "|P1") != first.hashed("north", "patient", "|P1")
    assert Ledger.open(tmp_path / "a").hashed("", "patient", "|P1") == first.hashed("", "patient", "|P1")


async def test_what_was_erased_is_known_again_and_what_came_later_is_not(tmp_path: Path) -> None:
    async with opened(tmp_path) as parts:
        await fill(parts)
        old, _ = await parts.library.get(case(1).case_id)
        await parts.erasures.erase(P1, "patient")
        unseen = replace(case(301), facts=replace(case(1).facts, instance_uid="1.301"), added_at_s=old.added_at_s)
        assert parts.erasures.is_erased(old)
        assert parts.erasures.is_erased(unseen)  # the patient was named, whichever cases there were
        assert not parts.erasures.is_erased(replace(old, added_at_s=old.added_at_s + 3600.0))
        assert not parts.erasures.is_erased((await parts.library.get(case(2).case_id))[0])
    async with opened(tmp_path, tenant="north") as other:
        assert not other.erasures.is_erased(old)


async def test_a_case_of_a_wrong_clock_erases_nothing_that_comes_later(tmp_path: Path) -> None:
    """It was added in the year 5138 by its own word; the next image of its patient is a new case."""
    async with opened(tmp_path) as parts:
        ahead = replace(case(1), added_at_s=9.9e10)
        await parts.library.put([StoredCase(ahead, vector(1))], lambda _: False)
        await parts.erasures.erase(P1, "patient")
        assert parts.erasures.is_erased(ahead)
        await parts.library.add(case(4), NOTHING, vector(4))
        assert not parts.erasures.is_erased((await parts.library.get(case(4).case_id))[0])
        assert await parts.erasures.replay() == 0
        assert await parts.library.count() == 1


async def test_a_case_of_a_wrong_clock_is_erased_to_the_end(tmp_path: Path) -> None:
    async with opened(tmp_path) as parts:
        await parts.library.put([StoredCase(replace(case(1), added_at_s=9.9e10), vector(1))], lambda _: False)
        parts.index.refuses = "erase"
        with pytest.raises(Unready):
            await parts.erasures.erase(P1, "patient")
        parts.index.refuses = ""
        await parts.library.put([StoredCase(replace(case(1), added_at_s=9.9e10), vector(1))], lambda _: False)
        await parts.erasures.finish()
        assert await parts.library.count() == 0


async def test_one_case_is_not_its_patient(tmp_path: Path) -> None:
    async with opened(tmp_path) as parts:
        await fill(parts)
        old = [(await parts.library.get(case(number).case_id))[0] for number in (1, 4)]
        await parts.erasures.erase(Equals("case_id", old[0].case_id), "case")
        assert [parts.erasures.is_erased(each) for each in old] == [True, False]


@pytest.mark.parametrize("refusal", ["delete", "erase"])
async def test_a_refusal_is_forgotten_or_ended_later(tmp_path: Path, refusal: str) -> None:
    async with opened(tmp_path) as parts:
        await fill(parts)
        parts.index.refuses = refusal
        with pytest.raises(Unready):
            await parts.erasures.erase(P1, "patient")
        assert parts.erasures.certificates() == []
        if refusal == "delete":  # nothing happened, and nothing will
            assert parts.journal.ledger.unfinished() == []
            assert await parts.index.count() == 9
            assert not parts.erasures.is_erased((await parts.library.get(case(1).case_id))[0])
            return
        assert await parts.index.count(P1) == 0
        with pytest.raises(Unready):
            await parts.erasures.finish()
        parts.index.refuses = ""
        await parts.erasures.finish()
        (done,) = parts.erasures.certificates()
        assert (done.case_count, done.found_again_count) == (3, 0)


@pytest.mark.parametrize("deleted", [0, 1, 3])
async def test_what_a_crash_cut_short_is_ended_at_the_next_start(tmp_path: Path, deleted: int) -> None:
    async with opened(tmp_path) as parts:
        await fill(parts)
        gone = [(await parts.library.get(case(number).case_id))[0] for number in (1, 4, 7)]
        intent = parts.erasures._intent(gone, "patient")
        parts.journal.ledger.intend(intent)
        for each in gone[:deleted]:
            await parts.index.delete(Equals("case_id", each.case_id))
        index = parts.index
    async with opened(tmp_path, index) as again:
        assert await index.count() == 6
        (done,) = again.erasures.certificates()
        assert (done.erasure_id, done.case_count, done.found_again_count) == (intent.erasure_id, 3, 0)
        assert again.blots[0](gone[0].case_id)
        assert again.blots[0](gone[0].content_sha256)
        assert not again.blots[0](case(2).case_id)


async def test_an_older_copy_is_noticed_by_its_mark(tmp_path: Path) -> None:
    async with opened(tmp_path) as parts:
        await fill(parts)
        await parts.erasures.erase(P1, "patient")
        older = (tmp_path / "mark").read_bytes()
        await parts.erasures.erase(Equals("patient_key", "|P2"), "patient")
        assert parts.journal.unseen() == []
    (tmp_path / "mark").write_bytes(older)
    async with opened(tmp_path) as copy:
        await fill(copy, range(2, 3))
        stored, vec = await copy.library.get(case(2).case_id)
        await copy.index.delete(Equals("case_id", stored.case_id))
        past = StoredCase(replace(stored, added_at_s=1.0), vec)
        await copy.library.put([past], lambda _: False)
        assert [intent.target for intent in copy.journal.unseen()] == ["patient"]
        assert await copy.erasures.replay() == 1
        assert await copy.index.count() == 0
        assert copy.journal.unseen() == []
        assert await copy.library.put([past], copy.erasures.is_erased)
        assert await copy.index.count() == 0
    ledger = (tmp_path / "ledger.jsonl").read_bytes()
    for damaged in (None, b"", ledger[: ledger.index(b"\n") + 1]):
        (tmp_path / "ledger.jsonl").unlink()
        if damaged is not None:
            (tmp_path / "ledger.jsonl").write_bytes(damaged)
        with pytest.raises(Unready, match="ledger"):
            Journal.open(tmp_path / "ledger.jsonl", tmp_path / "mark")
        (tmp_path / "ledger.jsonl").write_bytes(ledger)
    (tmp_path / "mark").unlink()
    assert len(Journal.open(tmp_path / "ledger.jsonl", tmp_path / "mark").unseen()) == 3


# The file


def intent(number: int) -> Intent:
    return Intent(f"e{number}", "", "study", float(number), ("aa",), ("bb",), ("cc",))


def certificate(number: int) -> Erasure:
    return Erasure(f"e{number}", number + 0.5, "study", 1, 0, True, 0)


def test_a_line_that_was_cut_short_was_never_acknowledged(tmp_path: Path) -> None:
    file = tmp_path / "ledger.jsonl"
    ledger = Ledger.open(file)
    for number in range(3):
        ledger.intend(intent(number))
        ledger.finish(certificate(number))
    whole = file.read_bytes()
    head = whole.index(b"\n") + 1
    for end in range(len(whole)):
        file.write_bytes(whole[:end])
        again = Ledger.open(file)
        lines = max(0, whole[:end].count(b"\n") - 1)
        assert (len(again.erasures("")), len(again.unfinished())) == divmod(lines, 2)
        assert file.read_bytes() == whole[: whole.rfind(b"\n", 0, end) + 1] or end < head
        again.intend(intent(9))
        assert "e9" in [each.erasure_id for each in Ledger.open(file).unfinished()]


@pytest.mark.parametrize("line", [b"{}", b"nonsense", b"[]", b'{"done":"unknown"}', b'{"intent":"x"}'])
def test_a_damaged_line_is_told(tmp_path: Path, line: bytes) -> None:
    file = tmp_path / "ledger.jsonl"
    Ledger.open(file).intend(intent(1))
    file.write_bytes(file.read_bytes() + line + b"\n")
    with pytest.raises(Unready, match="damaged") as caught:
        Ledger.open(file)
    assert caught.value.reason == "LEDGER_DAMAGED"


def test_a_full_disk_leaves_whole_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "ledger.jsonl"
    ledger = Ledger.open(file)
    ledger.intend(intent(1))

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", full)
        with pytest.raises(Unready, match="No space"):
            ledger.intend(intent(2))
    assert [each.erasure_id for each in ledger.unfinished()] == ["e1"]
    ledger.finish(certificate(1))
    assert [json.loads(line) for line in file.read_text().splitlines()][2]["done"] == "e1"
    assert Ledger.open(file).erasures("") == [certificate(1)]
