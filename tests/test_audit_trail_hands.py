"""The audit trail in somebody's hands: what is taken away, planted or forged is told, for good, and stops no tool."""

from __future__ import annotations

import json
import logging
import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from auth_files import HandClock
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from trail_files import KEY, event, made_trail, written

from nearcase.audit.chain import AuditChain
from nearcase.audit.event import AuditEvent
from nearcase.audit.files import files_in
from nearcase.audit.forwarder import Forwarder
from nearcase.audit.head import NAME as HEAD
from nearcase.audit.key import default_key_file, make_key, read_key
from nearcase.audit.line import read
from nearcase.audit.place import Place
from nearcase.audit.query import records_in
from nearcase.audit.spool import Spool, Step
from nearcase.audit.syslog import Collector
from nearcase.audit.trail import open_trail
from nearcase.audit.verify import verify
from nearcase.cli.audit import audit
from nearcase.clock import SystemClock
from nearcase.errors import InvalidInput
from nearcase.serve.caller import Caller
from nearcase.serve.refusals import EVERY_S, LOOK_S, MAX_REMEMBERED, Refusal, Refusals


@pytest.fixture(name="folder")
def trail(tmp_path: Path) -> Path:
    return made_trail(tmp_path)


def restart(folder: Path) -> AuditChain:
    chain = open_trail(folder, None, SystemClock()).chain
    chain.append([event(100)])
    chain.close()
    return chain


def kinds(folder: Path) -> list[str]:
    return [kept.event.kind for kept in records_in(folder)]


# Taken away


def cut_tail(folder: Path) -> None:
    path = files_in(folder)[-1].path
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-20]))


def remove(folder: Path, *patterns: str) -> None:
    for pattern in patterns:
        for path in folder.glob(pattern):
            path.unlink()


@pytest.mark.parametrize(
    "how", ["tail and head", "tail, and a bit of the head", "all", "the folder", "all but no head"]
)
def test_what_was_taken_away_is_told_for_good(folder: Path, how: str, caplog: pytest.LogCaptureFixture) -> None:
    if how.startswith("tail"):
        cut_tail(folder)
        head = bytearray((folder / HEAD).read_bytes())
        head[10] ^= 1
        (folder / HEAD).write_bytes(head)
    if how == "all but no head":
        (folder / HEAD).write_bytes(b"")
        remove(folder, "*.jsonl")
    remove(folder, *{"tail and head": [HEAD], "all": [HEAD, "*.jsonl"], "the folder": ["*"]}.get(how, []))
    if how == "the folder":
        folder.rmdir()
    assert restart(folder).damages == 1
    assert "damaged" in caplog.text
    assert restart(folder).damages == 0
    found = verify(folder, read_key(default_key_file(folder)))
    assert kinds(folder).count("damaged") == 1
    assert any("damaged at" in fault.what and fault.line and fault.seq for fault in found.faults)
    assert any("missing" in fault.what for fault in found.faults)
    result = CliRunner().invoke(audit, ["verify", str(folder)])
    assert (result.exit_code, "WRONG" in result.output, "whole" in result.output) == (1, True, False)


def test_a_first_start_is_no_damage_wherever_it_ends(tmp_path: Path) -> None:
    folder = tmp_path / "audit"
    open_trail(folder, None, SystemClock()).chain.close()  # before anything was recorded
    assert restart(folder).damages == 0
    other = tmp_path / "other"
    make_key(tmp_path / "other.key.new")  # killed before there was a head
    assert restart(other).damages == 0
    AuditChain.open(tmp_path / "third", KEY, HandClock()).close()
    chain = AuditChain.open(tmp_path / "third", KEY, HandClock())
    chain.append([event(0)])
    chain.close()
    for each, key in ((folder, None), (other, None), (tmp_path / "third", KEY)):
        assert verify(each, key or read_key(default_key_file(each))).is_sound
    assert not list(tmp_path.glob("*.new"))


# Planted


@pytest.mark.parametrize("data", [b"", b"anything\n"])
@pytest.mark.parametrize("is_head_gone", [False, True])
def test_a_planted_file_does_not_move_the_numbers(folder: Path, data: bytes, is_head_gone: bool) -> None:
    (folder / "99999999-99999999.jsonl").write_bytes(data)
    faults = [fault.what for fault in verify(folder, read_key(default_key_file(folder))).faults]
    assert faults[0] == "files 2 to 99999998 are missing"
    assert len(faults) <= 2
    if is_head_gone:
        (folder / HEAD).unlink()
    restart(folder)
    restart(folder)
    assert [file.number for file in files_in(folder)][-1] <= 3
    assert written(folder)[-2:] == ["r100", "r100"]
    assert verify(folder, read_key(default_key_file(folder))).is_sound != is_head_gone


def test_a_planted_file_beside_a_cut_tail_does_not_move_the_numbers(folder: Path) -> None:
    cut_tail(folder)
    (folder / "99999999-99999999.jsonl").touch()
    restart(folder)
    assert [file.number for file in files_in(folder)] == [1, 2, 99999999]
    restart(folder)
    assert [file.number for file in files_in(folder)] == [1, 2]
    assert written(folder)[-2:] == ["r100", "r100"]


# Forged


FORGED = [
    {"rpc": 5},
    {"detail": 5},
    {"kind": None},
    {"count": -1},
    {"count": 10**30},
    {"count": True},
    {"cases": "abc"},
    {"about": [5]},
    {"decisions": [{"finding": 5}]},
    {"decisions": [{"other": "x"}]},
    {"decisions": 5},
    {"at": "9999-12-31T23:59:59-12:00"},
    {"at": "0001-01-01T00:00:00+12:00"},
    {"at": 5},
    {"seq": 10**30},
]


@pytest.mark.parametrize("change", FORGED)
def test_a_forged_line_is_a_fault_and_stops_no_tool(
    folder: Path, change: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    path = files_in(folder)[0].path
    lines = path.read_bytes().splitlines()
    forged = json.dumps(json.loads(lines[5]) | change).encode()
    with pytest.raises(ValueError, match="no record"):
        read(forged)
    path.write_bytes(b"\n".join([*lines[:5], forged, *lines[6:]]) + b"\n")
    faults = verify(folder, None).faults
    assert (faults[0].what, faults[0].line) == ("no record", 6)
    with caplog.at_level(logging.WARNING):
        for command in (["search", "--rpc", "x"], ["search"], ["export"], ["export", "--dicom"], ["search", "--json"]):
            result = CliRunner().invoke(audit, [command[0], str(folder), *command[1:]])
            assert (result.exit_code, result.exception) == (0, None), command
    assert f"{path.name} that are no records" in caplog.text
    sender = Forwarder(folder, Collector("localhost", 1), lambda: len(lines))
    step = sender._following()
    assert [kept.seq for kept in step.found] == [seq for seq in range(1, len(lines) + 1) if seq != 6]
    assert step.place.seq == len(lines)


@given(
    st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.lists(x, max_size=2)), st.data()
)
def test_whatever_a_line_holds_is_a_record_or_a_value_error(value: object, data: st.DataObject) -> None:
    names = [*AuditEvent.__dataclass_fields__, "at", "seq", "prev", "mac"]
    line = {"seq": 1, "prev": "", "mac": "", "kind": "call", "at": "2026-11-23T00:00:00+00:00"}
    given_line = line | {data.draw(st.sampled_from(names)): value}
    try:
        kept = read(json.dumps(given_line).encode())
    except ValueError:
        return
    assert all(isinstance(text, str) for text in (kept.event.rpc, kept.event.detail, *kept.event.cases))


def test_a_line_that_never_ends_does_not_hold_up_the_collector(folder: Path) -> None:
    path = files_in(folder)[0].path
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:5], b"x" * 5 * 2**20, b"\n", *lines[5:]]))
    spool, step, found = Spool(folder, lambda: 31), Step(Place(), is_cut=True), 0
    while step.is_cut:
        step = spool.following(step.place)
        found += len(step.found)
    assert found == len(lines)


@pytest.mark.parametrize("at", [0, 5, 30])
@pytest.mark.parametrize("ahead", [5, 2**40])
def test_a_number_that_no_record_has_yet_does_not_hold_up_the_collector(
    folder: Path, at: int, ahead: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Not for longer than until a true record is behind it: the last one may just not be on the disk yet."""
    path = files_in(folder)[0].path
    lines = path.read_bytes().splitlines(keepends=True)
    last = read(lines[-1].strip()).seq
    forged = [json.dumps(json.loads(lines[3]) | {"seq": last + ahead + more}).encode() + b"\n" for more in (1, 2)]
    now_last = last - 1
    sender = Forwarder(folder, Collector("localhost", 1), lambda: now_last)
    path.write_bytes(b"".join([*lines[:at], *forged, *lines[at:-1]]))
    sent = []
    with caplog.at_level(logging.WARNING):
        for end in (b"", lines[-1]):
            with path.open("ab") as file:
                file.write(end)
            now_last = last if end else last - 1
            for _ in range(3):
                step = sender._following()
                sender._place = step.place
                sent += [kept.seq for kept in step.found]
    assert sent == list(range(1, last + 1))
    assert sender.unsent == 0
    assert len([each for each in caplog.records if "are not sent: 2" in each.message]) == 1


# Taken away while it is open


@pytest.mark.parametrize("what", ["folder", "moved", "file", "head"])
def test_files_that_are_taken_away_while_they_are_open_are_a_trail_that_can_not_be_written(
    tmp_path: Path, what: str
) -> None:
    folder = tmp_path / "audit"
    chain = AuditChain.open(folder, KEY, SystemClock())
    chain.append([event(0)])
    away = tmp_path / "away"
    if what in ("folder", "moved"):
        folder.rename(away)
    else:
        next(folder.glob("*.jsonl" if what == "file" else HEAD)).unlink()
    for _ in range(1 + 2 * (what in ("folder", "moved"))):
        with pytest.raises(FileNotFoundError):
            chain.append([event(1)])
    if what == "moved":
        away.rename(folder)
    if what == "folder":
        folder.mkdir()
        other = AuditChain.open(folder, KEY, SystemClock())  # of another server
        with pytest.raises(OSError, match="another server"):
            chain.append([event(1)])
        with pytest.raises(OSError, match="another server"):
            chain.append([event(1)])
        other.close()
    chain.append([event(2)])
    chain.close()
    AuditChain.open(folder, KEY, SystemClock()).close()
    is_gone = what in ("folder", "file")
    assert chain.damages == is_gone
    assert written(folder) == (["r2"] if is_gone else ["r0", "r2"])
    assert verify(folder, KEY).is_sound != is_gone
    assert [kept.seq for kept in records_in(folder)][-1] > 2  # it goes on counting


# The commands


def test_names_of_another_key_are_refused(folder: Path, tmp_path: Path) -> None:
    make_key(tmp_path / "other.key")
    command = ["search", str(folder), "--patient", "4711", "--key", str(tmp_path / "other.key")]
    result = CliRunner().invoke(audit, command)
    assert isinstance(result.exception, InvalidInput)
    assert result.exception.reason == "AUDIT_KEY"
    assert CliRunner().invoke(audit, command[:-2]).exit_code == 0


@pytest.mark.parametrize(
    ("since", "same"),
    [
        ("2026-11-01", "2026-11-01T00:00:00Z"),
        ("2026-11-01 08:30", "2026-11-01T08:30:00+00:00"),
        ("2026-11-01T08:30:00+01:00", "2026-11-01T07:30:00"),
        ("2026-11-01T00:00:00.5-05:00", "2026-11-01T05:00:00.500"),
    ],
)
def test_a_time_without_an_offset_is_utc(tmp_path: Path, since: str, same: str) -> None:
    at_s = datetime.fromisoformat(same).replace(tzinfo=UTC).timestamp()
    chain = open_trail(tmp_path / "audit", None, SystemClock()).chain
    chain.append([replace(event(0), at_s=at_s + moved) for moved in (-0.25, 0, 0.25)])
    chain.close()

    def count(*words: str) -> int:
        found = CliRunner().invoke(audit, ["search", str(tmp_path / "audit"), "--kind", "call", *words, "--json"])
        assert found.exit_code == 0, found.exception
        return len(json.loads(found.output))

    assert (
        (count("--since", since), count("--until", since)) == (count("--since", same), count("--until", same)) == (2, 1)
    )


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--since", "yesterday"], "--since"),
        (["--until", "2026-13-01"], "--until"),
        (["--since", "2026-11-01T08:30+25:00"], "--since"),
        (["--since", "\x1b[2J\n" * 200], "--since"),
        (["--since", "2026-11-01", "--until", "2026-11-01T01:00+02:00"], "before --until"),
    ],
)
def test_a_time_that_is_none_is_refused_in_one_line(folder: Path, words: list[str], told: str) -> None:
    for command in ("search", "export"):
        found = CliRunner().invoke(audit, [command, str(folder), *words])
        assert isinstance(found.exception, InvalidInput)
        assert told in str(found.exception)
        assert re.fullmatch(r"[ -~]{1,200}", str(found.exception))


def test_an_export_is_for_its_owner(folder: Path, tmp_path: Path) -> None:
    assert CliRunner().invoke(audit, ["export", str(folder), "--out", str(tmp_path / "out")]).exit_code == 0
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o600


# Refusals


def refusal(number: int) -> Refusal:
    return Refusal(Caller(f"c{number}", "", frozenset()), "PERMISSION_DENIED", "ROLE")


def test_refusals_that_were_only_counted_are_told_in_time() -> None:
    clock = HandClock()
    refusals = Refusals(clock)
    assert [refusals.take(refusal(0)) for _ in range(5)] == [1, 0, 0, 0, 0]
    assert not refusals.due()
    clock.run_s += EVERY_S - LOOK_S
    assert refusals.due() == [(refusal(0), 4)]
    assert not refusals.due()
    assert refusals.take(refusal(0)) == 0
    assert refusals.rest() == [(refusal(0), 1)]
    assert not refusals.rest()


def test_no_refusal_is_lost_when_there_are_too_many_to_remember() -> None:
    refusals, given = Refusals(HandClock()), 0
    told = 0
    for number in range(3 * MAX_REMEMBERED):
        for _ in range(1 + number % 3):
            told += refusals.take(refusal(number))
            given += 1
    told += sum(count for _, count in refusals.due())
    told += sum(count for _, count in refusals.rest())
    assert told == given
