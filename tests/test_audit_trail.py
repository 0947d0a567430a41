"""The audit trail on disk: a whole one is read as it was written, and what is damaged is found and named."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from auth_files import HandClock
from hypothesis import given
from hypothesis import strategies as st
from trail_files import KEY, event, written

from nearcase.audit.chain import AuditChain
from nearcase.audit.event import CALL, KINDS, AuditEvent, Said, event_from_json, event_to_json
from nearcase.audit.files import files_in
from nearcase.audit.head import NAME as HEAD
from nearcase.audit.key import AuditKey, make_key, read_key
from nearcase.audit.query import Wanted, records_in
from nearcase.audit.verify import Verified, verify
from nearcase.errors import InvalidInput, Unready

DAY_S = 86_400.0
COUNT = 30


@pytest.fixture(name="folder")
def full_trail(tmp_path: Path) -> Path:
    """A trail of several files."""
    folder = tmp_path / "audit"
    chain = AuditChain.open(folder, KEY, HandClock(), file_bytes=2000)
    for number in range(COUNT):
        chain.append([event(number)])
    chain.close()
    assert len(files_in(folder)) > 3
    return folder


def lines_of(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True)


def told(found: Verified) -> list[tuple[str, int, int]]:
    return [(fault.file, fault.line, fault.seq) for fault in found.faults]


# Events


texts = st.text(st.characters(codec="utf-8"), max_size=20)
said = st.builds(Said, texts, texts, texts, texts, texts, texts)
events = st.builds(
    AuditEvent,
    kind=st.sampled_from(KINDS),
    at_s=st.integers(0, 4_000_000_000_000_000).map(lambda micros: micros / 1e6),
    caller=texts,
    about=st.lists(texts, max_size=3).map(tuple),
    cases=st.lists(texts, max_size=3).map(tuple),
    count=st.integers(0, 2**40),
    decisions=st.lists(said, max_size=2).map(tuple),
    detail=texts,
)


@given(events)
def test_an_event_is_read_as_it_was_written(one: AuditEvent) -> None:
    again = event_from_json(json.loads(json.dumps(event_to_json(one))))
    assert abs(again.at_s - one.at_s) < 1e-5
    assert replace(again, at_s=one.at_s) == one


def test_names_differ_by_tenant_kind_and_key() -> None:
    other = AuditKey.of(bytes(range(1, 33)))
    names = {
        key.named(tenant, kind, value)
        for key in (KEY, other)
        for tenant in ("", "north")
        for kind in ("case", "patient")
        for value in ("1", "2")
    }
    assert len(names) == 16
    assert KEY.named("", "case", "") == ""
    assert KEY.named("", "case", "1") == AuditKey.of(bytes(range(32))).named("", "case", "1")


# A whole trail


def test_a_whole_trail_is_sound_and_read_in_order(folder: Path) -> None:
    found = verify(folder, KEY)
    assert (found.faults, found.notes) == ([], [])
    assert found.records == COUNT + found.files
    assert found.last_seq == found.records
    assert written(folder) == [f"r{number}" for number in range(COUNT)]
    assert [kept.seq for kept in records_in(folder, after_seq=17)] == list(range(18, found.records + 1))
    assert verify(folder, None).is_sound
    assert not verify(folder, AuditKey.of(bytes(range(7, 40)))).is_sound


def test_it_goes_on_after_a_stop(folder: Path) -> None:
    before = verify(folder, KEY)
    chain = AuditChain.open(folder, KEY, HandClock())
    chain.append([event(100), event(101)])
    chain.close()
    found = verify(folder, KEY, (before.last_seq, before.last_sha256))
    assert found.is_sound
    assert found.records == before.records + 2


def test_a_day_begins_a_file_and_a_clock_that_goes_back_does_not(tmp_path: Path) -> None:
    clock = HandClock()
    chain = AuditChain.open(tmp_path, KEY, clock)
    for jump_s in (0.0, DAY_S, 0.0, DAY_S, -400 * DAY_S, DAY_S, 2 * DAY_S):
        clock.wall_s = 1.9e9 + jump_s
        chain.append([event(0, at_s=clock.wall_s)])
    chain.close()
    assert len(files_in(tmp_path)) == 3
    assert verify(tmp_path, KEY).is_sound
    assert [kept.seq for kept in records_in(tmp_path)] == list(range(1, 11))


# What is found


def test_every_flipped_bit_is_found_and_its_record_named(folder: Path) -> None:
    chance = random.Random(7)
    for file in files_in(folder):
        data = file.path.read_bytes()
        for place in chance.sample(range(len(data)), 25):
            damaged = bytearray(data)
            damaged[place] ^= 1 << chance.randrange(8)
            file.path.write_bytes(damaged)
            found = verify(folder, KEY)
            line = data[:place].count(b"\n") + 1
            assert any(
                (fault.file == file.path.name and fault.line in (line, line + 1)) or "head" in fault.what
                for fault in found.faults
            ), place
            assert not verify(folder, None).is_sound
        file.path.write_bytes(data)
    assert verify(folder, KEY).is_sound


@pytest.mark.parametrize("where", ["first", "middle", "last of a file", "last"])
def test_a_missing_record_is_found(folder: Path, where: str) -> None:
    files = files_in(folder)
    file = {"first": files[0], "last": files[-1]}.get(where, files[1])
    lines = lines_of(file.path)
    gone = lines.pop({"first": 1, "middle": 2}.get(where, len(lines) - 1))
    file.path.write_bytes(b"".join(lines))
    found = verify(folder, KEY)
    seq = json.loads(gone)["seq"]
    assert [fault.seq for fault in found.faults] == [seq]
    assert "missing" in found.faults[0].what


def test_reordered_records_are_found(folder: Path) -> None:
    file = files_in(folder)[1]
    lines = lines_of(file.path)
    lines[1], lines[2] = lines[2], lines[1]
    file.path.write_bytes(b"".join(lines))
    seq = json.loads(lines[2])["seq"]
    assert told(verify(folder, KEY)) == [(file.path.name, 3, seq)]


def test_a_repeated_record_is_found(folder: Path) -> None:
    file = files_in(folder)[1]
    lines = lines_of(file.path)
    file.path.write_bytes(b"".join([*lines, lines[1]]))
    assert told(verify(folder, KEY)) == [(file.path.name, len(lines) + 1, json.loads(lines[1])["seq"])]


@pytest.mark.parametrize("place", [0, 1, -1])
def test_a_missing_file_is_found(folder: Path, place: int) -> None:
    file = files_in(folder)[place]
    file.path.unlink()
    words = " ".join(fault.what for fault in verify(folder, KEY).faults)
    assert f"file {file.number}" in words
    assert "missing" in words


@pytest.mark.parametrize("bytes_left", [0, -1, -500])
def test_a_truncated_tail_is_found_also_after_the_server_started_again(folder: Path, bytes_left: int) -> None:
    path = files_in(folder)[-1].path
    data = path.read_bytes()
    path.write_bytes(data[:bytes_left] if bytes_left else lines_of(path)[0])
    what = verify(folder, KEY).faults[-1].what
    assert "missing at the end" in what if bytes_left != -1 else "changed" in what
    chain = AuditChain.open(folder, KEY, HandClock())
    chain.append([event(100)])
    chain.close()
    found = verify(folder, KEY)
    assert not found.is_sound
    assert [kept.event.kind for kept in records_in(folder)][-2:] == ["damaged", "call"]


@pytest.mark.parametrize("how", ["gone", "another", "empty"])
def test_a_head_that_was_taken_away_is_found(folder: Path, how: str) -> None:
    head = folder / HEAD
    if how == "gone":
        head.unlink()
    else:
        head.write_bytes(b"" if how == "empty" else head.read_bytes().replace(b'"seq":', b'"seq":1'))
    assert any("head" in fault.what for fault in verify(folder, KEY).faults)
    chain = AuditChain.open(folder, KEY, HandClock())
    chain.append([event(100)])
    chain.close()
    *_, damaged, last = records_in(folder)
    assert (damaged.event.kind, last.event.kind) == ("damaged", "call")
    for _ in range(3):  # for good, however often it is started
        AuditChain.open(folder, KEY, HandClock()).close()
        gap, told_of = sorted(verify(folder, KEY).faults, key=lambda fault: fault.seq)
        assert (gap.what, gap.seq) == (f"record {damaged.seq - 1} is missing", damaged.seq - 1)
        assert (told_of.file, told_of.line, told_of.seq) == (damaged.file, damaged.line, damaged.seq)
        assert "2030-03-17 17:46:40 UTC: the head is missing" in told_of.what


def test_who_has_no_key_can_not_write_a_chain_anew(folder: Path) -> None:
    copy = folder.parent / "forged"
    forged = AuditChain.open(copy, AuditKey.of(bytes(range(5, 60))), HandClock())
    for number in range(COUNT):
        forged.append([event(number, caller="somebody else")])
    forged.close()
    assert not verify(copy, KEY).is_sound


def test_a_witness_finds_a_whole_older_copy(folder: Path) -> None:
    older = folder.parent / "older"
    shutil.copytree(folder, older)
    chain = AuditChain.open(folder, KEY, HandClock())
    chain.append([event(100)])
    chain.close()
    now = verify(folder, KEY)
    assert verify(older, KEY).is_sound  # from within nothing can be seen
    assert not verify(older, KEY, (now.last_seq, now.last_sha256)).is_sound
    assert verify(folder, KEY, (now.last_seq, now.last_sha256)).is_sound


# Who may write


def test_one_server_writes_a_trail_and_only_with_its_key(folder: Path) -> None:
    chain = AuditChain.open(folder, KEY, HandClock())
    with pytest.raises(Unready) as refused:
        AuditChain.open(folder, KEY, HandClock())
    assert refused.value.reason == "AUDIT_IN_USE"
    chain.close()
    with pytest.raises(InvalidInput) as wrong:
        AuditChain.open(folder, AuditKey.of(bytes(range(9, 50))), HandClock())
    assert wrong.value.reason == "AUDIT_KEY"
    AuditChain.open(folder, KEY, HandClock()).close()  # a refusal leaves no lock behind


def test_a_key_is_for_its_owner(tmp_path: Path) -> None:
    file = tmp_path / "key"
    make_key(file)
    assert file.stat().st_mode & 0o777 == 0o600
    assert read_key(file) == read_key(file)
    file.chmod(0o604)
    with pytest.raises(InvalidInput, match="0604"):
        read_key(file)
    file.chmod(0o600)
    file.write_bytes(b"0" * 64)
    with pytest.raises(InvalidInput, match="random"):
        read_key(file)


def test_files_are_for_their_owner_only(folder: Path) -> None:
    assert {path.stat().st_mode & 0o077 for path in folder.iterdir()} == {0}


# Reading


def test_records_are_found_by_what_is_asked(tmp_path: Path) -> None:
    chain = AuditChain.open(tmp_path, KEY, HandClock())
    chain.append(
        [
            event(0, caller="pacs", cases=(KEY.named("", "case", "a"),)),
            event(1, caller="eve", code="PERMISSION_DENIED", about=(KEY.named("", "patient", "|P"),)),
            event(2, caller="pacs", tenant="north", rpc="v1.DecisionService/Decide"),
        ]
    )
    chain.close()

    def found(wanted: Wanted) -> list[str]:
        return [kept.event.request_id for kept in records_in(tmp_path) if wanted.takes(kept)]

    tries: list[tuple[Wanted, list[str]]] = [
        (Wanted(kind=CALL), ["r0", "r1", "r2"]),
        (Wanted(caller="pacs"), ["r0", "r2"]),
        (Wanted(caller="pacs", tenant="north"), ["r2"]),
        (Wanted(rpc="decide"), ["r2"]),
        (Wanted(code="PERMISSION_DENIED"), ["r1"]),
        (Wanted(names=(KEY.named("", "case", "a"), "other")), ["r0"]),
        (Wanted(names=(KEY.named("", "patient", "|P"),)), ["r1"]),
        (Wanted(since_s=1.9e9 + 1, until_s=1.9e9 + 2), ["r1"]),
        (Wanted(request_id="r2"), ["r2"]),
    ]
    for wanted, expected in tries:
        assert found(wanted) == expected, wanted


Damage = Callable[[bytes], bytes]


@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: b"\x00" * 100, lambda data: b"[" * 100_000])
def test_a_file_of_anything_is_a_fault_and_never_a_crash(folder: Path, damage: Damage) -> None:
    path = files_in(folder)[1].path
    path.write_bytes(damage(path.read_bytes()))
    assert not verify(folder, KEY).is_sound
    chain = AuditChain.open(folder, KEY, HandClock())
    chain.append([event(100)])
    chain.close()
    assert not verify(folder, KEY).is_sound
