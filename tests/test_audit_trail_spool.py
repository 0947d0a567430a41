"""What the collector is still to get: read on in short steps whatever was forged; all of it where nobody knows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from trail_files import made_trail

from nearcase.audit.files import files_in
from nearcase.audit.forwarder import Forwarder
from nearcase.audit.line import Kept, read
from nearcase.audit.place import Place
from nearcase.audit.spool import Spool, Step
from nearcase.audit.syslog import Collector


@pytest.fixture(name="folder")
def trail(tmp_path: Path) -> Path:
    return made_trail(tmp_path)


def test_lines_that_were_forged_are_each_looked_at_once_and_in_short_steps(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = files_in(folder)[0].path
    true = path.read_bytes()
    last = read(true.splitlines()[-1]).seq
    forged = [{"seq": 10**9 + n, "prev": "", "mac": "", "kind": "call", "at": "2026-11-01T00:00Z"} for n in range(2000)]
    path.write_bytes(true + b"".join(json.dumps(line).encode() + b"\n" for line in forged))
    looked = [0]

    def counted(line: bytes) -> Kept:
        looked[0] += 1
        return read(line)

    monkeypatch.setattr("nearcase.audit.spool.read", counted)
    monkeypatch.setattr("nearcase.audit.spool.STEP_BYTES", 20_000)
    spool, place, steps = Spool(folder, lambda: last), Place(), 0
    for _ in range(3):  # the second and the third find nothing new
        step = Step(place, is_cut=True)
        while step.is_cut:
            before, step = looked[0], spool.following(place)
            place, steps = step.place, steps + 1
            assert looked[0] - before < 300
    assert (place.seq, looked[0]) == (last, last + 2000)
    assert steps > 8
    chain = json.loads(true.splitlines()[-1]) | {"seq": last + 1}
    with path.open("ab") as file:
        file.write(json.dumps(chain).encode() + b"\n")
    last += 1
    step, strange = Step(place, is_cut=True), 0
    while step.is_cut:
        step = spool.following(step.place)
        strange += step.strange
    assert (step.place.seq, strange) == (last, 2000)
    assert looked[0] <= 2 * (last + 2000)


# How far the collector came


@pytest.mark.parametrize(
    "sent",
    [
        *(None, "", "[]", "[" * 10**5, '{"seq":"a"}', '{"seq":1,"file":1}', '{"seq":99,"file":1,"offset":0}'),
        *('{"seq":"1","file":1,"offset":0}', '{"seq":true,"file":1,"offset":0}', '{"seq":1,"file":2,"offset":0}'),
        *('{"seq":1,"file":1,"offset":-5}', '{"seq":1,"file":1,"offset":1e30}', '{"seq":1,"file":1,"offset":5}'),
        '{"seq":1,"file":1,"offset":99999999}',
    ],
)
def test_where_nobody_knows_what_was_sent_all_of_it_is(
    folder: Path, sent: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    if sent is not None:
        (folder / "sent").write_text(sent)
    last = len(files_in(folder)[0].path.read_bytes().splitlines())
    sender = Forwarder(folder, Collector("localhost", 1), lambda: last)
    assert sender.unsent == last
    assert [kept.seq for kept in sender._following().found] == list(range(1, last + 1))
    assert "from its oldest record on" in caplog.text
    caplog.clear()
    assert Forwarder(folder, Collector("localhost", 1), lambda: last + 3).unsent == last + 3  # not from now on
    assert not caplog.text
