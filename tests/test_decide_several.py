"""Decisions about several images as one, and decisions that outlive the server that made them."""

from __future__ import annotations

import secrets
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_library import POINT, declare, fill, finding_text, fitted_on, made_cases, reference_of
from serving import scan, serving

from nearcase.client import AddItem, Client
from nearcase.decide.changes import compare
from nearcase.decide.record import read_record, redacted, replay
from nearcase.errors import InvalidInput, NotFound
from nearcase.types import Call

pytestmark = pytest.mark.system
MASS = finding_text("mass", POINT)
COUNT = 100
CASES = [
    (replace(case, facts=replace(case.facts, study_uid=f"1.9.{case.facts.patient_id[1:]}")), vector)
    for case, vector in made_cases(patients=60)
]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library with a fitted finding, which no server has open."""
    folder = tmp_path_factory.mktemp("several")
    fill(folder, CASES)
    declare(folder / "findings", MASS, fitted_on(reference_of(folder, MASS), MASS))
    return folder


def copied(data: Path, to: Path) -> Path:
    """The same library for one test."""
    return Path(shutil.copytree(data, to / "data"))


def test_a_study_is_decided_about_by_its_mean_and_no_point_is_claimed(data: Path, tmp_path: Path) -> None:
    folder = copied(data, tmp_path)
    with serving(folder, "--findings", str(folder / "findings")) as server, Client(server.address) as client:
        for case, _ in CASES[:20:2]:
            answer = client.decide(study_uid=case.facts.study_uid, finding="mass")
            (decision,) = answer.decisions
            assert answer.query_image.image_count == 2
            assert (decision.call, decision.abstain_reason) == (Call.ABSTAIN, "SEVERAL_IMAGES")
            assert decision.score is not None
            own = [vector for other, vector in CASES if other.facts.study_uid == case.facts.study_uid]
            mean = np.mean(own, axis=0)
            mean /= np.linalg.norm(mean)
            vectors = {other.case_id: vector for other, vector in CASES if other.facts != case.facts}
            found = {piece.hit.case.case_id: piece.hit.similarity for piece in decision.evidence}
            assert not {other.case_id for other, _ in CASES if other.facts.patient_id == case.facts.patient_id} & set(
                found
            )
            nearest = sorted((float(vector @ mean) for case_id, vector in vectors.items() if case_id in found))
            assert sorted(found.values()) == pytest.approx(nearest, abs=1e-5)
            record = read_record(client.record(decision.record_id))
            assert record.basis.image_count == 2
            assert redacted(replay(record)) == redacted(decision)
        alone = client.decide(case_id=CASES[0][0].case_id, finding="mass").decisions[0]
        assert alone.abstain_reason == ""
        with pytest.raises(InvalidInput, match="one thing"):
            client.decide(study_uid="1.9.1", case_id=CASES[0][0].case_id)


def test_a_hundred_decisions_replay_after_the_server_was_killed_and_started_again(data: Path, tmp_path: Path) -> None:
    folder = copied(data, tmp_path)
    options = ("--findings", str(folder / "findings"))
    with serving(folder, *options) as server, Client(server.address) as client:
        made = [
            client.decide(case_id=case.case_id, finding="mass", prevalence=0.1).decisions[0]
            for case, _ in CASES[:COUNT]
        ]
        server.process.kill()  # as kill -9: what was answered is on the disk
        server.process.wait()
    assert len({decision.record_id for decision in made}) == COUNT
    with serving(folder, *options) as server, Client(server.address) as client:
        for (case, _), decision in zip(CASES, made, strict=False):
            record = read_record(client.record(decision.record_id))
            again = replay(record)
            assert again.record_id == decision.record_id
            assert redacted(again) == redacted(decision)
            today = client.decide(case_id=case.case_id, finding="mass", prevalence=0.1).decisions[0]
            assert compare(record, read_record(client.record(today.record_id))) == ()
        command = [sys.executable, "-m", "nearcase", "replay", made[0].record_id, "--server", server.address]
        shown = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
        assert "gives the same decision again" in shown


def test_a_de_identified_library_decides_about_files_and_keeps_no_name(tmp_path: Path) -> None:
    key = tmp_path / "pseudonym.key"
    key.write_text(secrets.token_hex(32))
    key.chmod(0o600)
    folder = tmp_path / "data"
    with serving(folder, "--deidentify", "--pseudonym-key", str(key)) as server, Client(server.address) as client:
        items = [AddItem(str(seed), scan(seed, f"PLANTED-{seed}"), labels={"mass": str(seed % 2)}) for seed in range(8)]
        assert not [result.error for result in client.add(items) if result.error]
        one = client.decide(scan(0, "PLANTED-0"), finding="mass").decisions[0]
        assert len(one.evidence) == 7  # its own patient, by the pseudonym, is left out
        both = client.decide([scan(0, "PLANTED-0"), scan(1, "PLANTED-1")], finding="mass")
        assert both.query_image.image_count == 2
        assert len(both.decisions[0].evidence) == 6
        for decision in (one, both.decisions[0]):
            record = client.record(decision.record_id)
            assert b"PLANTED" not in record
            assert redacted(replay(read_record(record))) == redacted(decision)
        assert client.library.erase(patient_id="PLANTED-1")[0] == 1
        with pytest.raises(NotFound):  # it was asked about, and is no evidence
            client.record(both.decisions[0].record_id)
    for file in folder.rglob("*"):
        assert not file.is_file() or b"PLANTED" not in file.read_bytes()
