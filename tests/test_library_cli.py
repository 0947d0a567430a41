"""The commands that correct and erase cases, against a real server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from serving import scan, serving

from nearcase.cli.app import run
from nearcase.client import AddItem, Client
from nearcase.demo.server import RunningServer
from nearcase.errors import NotFound

pytestmark = pytest.mark.system
KEY = bytes(range(7, 39))


def said(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    with pytest.raises(SystemExit) as ended:
        run(["library", *arguments])
    out = capsys.readouterr()
    assert ended.value.code == code, out.err
    return out.out + out.err


def test_a_case_is_corrected_merged_and_erased(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(tmp_path) as server, Client(server.address) as client:
        where = ("--server", server.address)
        (one, other) = client.add([AddItem(name, scan(n, name), {"mass": "1"}) for n, name in enumerate(("P1", "P2"))])
        shown = json.loads(said(capsys, "label", one.case_id, "mass=0", "grade=3", "--by", "Who", *where))
        assert shown["labels"] == {"mass": "0", "grade": "3"}
        assert [(row["name"], row["old"], row["new"], row["changed_by"]) for row in shown["history"]] == [
            ("grade", "", "3", "Who"),
            ("mass", "1", "0", "Who"),
        ]
        said(capsys, "label", one.case_id, "grade=", *where)
        assert client.case(one.case_id).labels == {"mass": "0"}
        assert "NAME=VALUE" in said(capsys, "label", one.case_id, "grade", *where, code=2)
        assert json.loads(said(capsys, "flag", one.case_id, "no-consent", *where))["flags"] == ["no-consent"]
        assert [case.case_id for case in client.cases("flags = no-consent")] == [one.case_id]
        assert {hit.case.case_id for hit in client.search(scan(5), k=9).hits} == {other.case_id}
        said(capsys, "flag", one.case_id, "no-consent", "--clear", *where)
        assert {hit.case.case_id for hit in client.search(scan(5), k=9).hits} == {one.case_id, other.case_id}
        assert "1 cases changed hands" in said(capsys, "merge", "P1", "P2", "--by", "MPI", *where)
        assert json.loads(said(capsys, "show", one.case_id, *where))["facts"]["patient_id"] == "P2"
        assert "two patients" in said(capsys, "merge", "P1", "P1", *where, code=2)
        erased = said(capsys, "erase", "--patient", "P2", "--yes", *where)
        assert "2 cases erased; the files that held them are rewritten" in erased
        assert "0 cases found again" in erased
        (listed,) = json.loads(said(capsys, "erasures", "--json", *where))
        assert listed["erasure_id"] in erased
        assert (listed["target"], listed["case_count"]) == ("patient", 2)
        assert listed["erasure_id"] in said(capsys, "erasures", *where)
        assert "there were none" in said(capsys, "erase", "--patient", "P2", "--yes", *where)
        by_age(client, server, capsys)


def by_age(client: Client, server: RunningServer, capsys: pytest.CaptureFixture[str]) -> None:
    where = ("--server", server.address)
    list(client.add([AddItem("young", scan(1))]))
    nothing = said(capsys, "erase", "--older-than-days", "1", "--yes", "--json", *where)
    assert json.loads(nothing) == {"erased_count": 0, "certificate": None}
    found = json.loads(said(capsys, "erase", "--older-than-days", "1e-9", "--yes", "--json", *where))
    assert (found["erased_count"], found["certificate"]["target"]) == (1, "retention")
    assert "exactly one" in said(capsys, "erase", "--older-than-days", "1", "--patient", "P1", "--yes", *where, code=2)


def test_a_de_identified_library_merges_and_erases_by_real_ids(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_bytes(KEY)
    key.chmod(0o600)
    data = tmp_path / "data"
    with (
        serving(data, "--deidentify", "--pseudonym-key", str(key)) as server,
        Client(server.address) as client,
    ):
        results = list(
            client.add([AddItem(name, scan(n, name)) for n, name in enumerate(("REAL-1", "REAL-2", "REAL-3"))])
        )
        assert not [result.error for result in results if result.error]
        assert client.library.merge("REAL-1", "REAL-2", changed_by="MPI") == 1
        patients = [case.facts.patient_id for case in client.cases()]
        assert len(set(patients)) == 2
        with pytest.raises(NotFound):
            client.library.merge("REAL-3", "REAL-9")
        (again,) = client.add([AddItem("again", scan(0, "REAL-1"))])
        assert again.outcome == "unchanged"
        count, certificate = client.library.erase(patient_id="REAL-2")
        assert count == 2
        assert certificate is not None
        corrected, _ = client.library.update(case_id=next(client.cases()).case_id, labels={"mass": "1"})
        assert corrected.labels == {"mass": "1"}
    held = b"".join(path.read_bytes() for path in data.rglob("*") if path.is_file())
    assert b"REAL-" not in held
