"""After an erasure no byte under the data folder is the patient's: every file is looked at, through a real server."""

from __future__ import annotations

import base64
import hashlib
import random
import shutil
import threading
import uuid
from contextlib import suppress
from pathlib import Path

import grpc
import numpy as np
import pytest
from serving import scan, serving

from nearcase.client import AddItem, Client
from nearcase.decide.record import read_record, replay
from nearcase.errors import InvalidInput, NearcaseError, NotFound
from nearcase.types import Case, Erasure
from nearcase.v1 import library_pb2, library_pb2_grpc

pytestmark = pytest.mark.system

GONE = "ERASE-ME-4711"
OTHERS = ("KEEP-1", "KEEP-2", "KEEP-3")
IMAGES = 3  # of each patient
BLOCK = 4096
ZEROS = bytes(BLOCK)
FINDING = """
name = "mass"
version = "1"
label = "mass"
positive_values = ["1"]
negative_values = ["0"]
[scorer]
kind = "neighbours"
k = 5
"""


def test_no_byte_is_left_under_the_data_folder(tmp_path: Path) -> None:
    data, findings = tmp_path / "data", tmp_path / "findings"
    findings.mkdir()
    (findings / "mass.toml").write_text(FINDING)
    with serving(data, "--findings", str(findings)) as server, Client(server.address) as client:
        cases = fill(client)
        traces = traces_of(client, cases[GONE])
        leave_an_unfinished_upload(server.address)
        about = client.decide(scan(1, "SOMEBODY"), finding="mass").decisions[0]
        assert {piece.hit.case.case_id for piece in about.evidence} & {case.case_id for case in cases[GONE]}
        itself = client.decide(case_id=cases[GONE][0].case_id, finding="mass").decisions[0]
        clean = client.decide(
            case_id=cases["KEEP-1"][0].case_id, finding="mass", where=f'not patient_key = "|{GONE}"'
        ).decisions[0]
        # The test sees what it looks for, as long as it is there.
        assert {name.split(" ")[0] for name in found_in(data, traces)} >= {"patient", "instance", "case", "vector"}
        count, certificate = client.library.erase(patient_id=GONE)
        assert certificate is not None
        assert (count, certificate.case_count, certificate.target) == (IMAGES, IMAGES, "patient")
        assert (certificate.record_count, certificate.is_rewritten, certificate.found_again_count) == (2, True, 0)
        assert found_in(data, traces) == set()
        assert list(client.library.erasures()) == [certificate]
        with pytest.raises(InvalidInput, match="erased") as caught:
            read_record(client.record(about.record_id))
        assert caught.value.reason == "EVIDENCE_ERASED"
        with pytest.raises(NotFound):  # its neighbours could be found again with the image
            client.record(itself.record_id)
        assert replay(read_record(client.record(clean.record_id))).record_id == clean.record_id
        hits = client.search(scan(0, GONE), k=50, own_patient=True).hits
        assert {hit.case.facts.patient_id for hit in hits} == set(OTHERS)
        assert client.library.erase(patient_id=GONE) == (0, None)
    assert found_in(data, traces) == set()
    with serving(data) as server, Client(server.address) as client:
        assert list(client.library.erasures()) == [certificate]
        assert client.statistics().case_count == len(OTHERS) * IMAGES
    assert found_in(data, traces) == set()


def test_an_older_copy_of_the_library_is_erased_again(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with serving(data) as server, Client(server.address) as client:
        cases = fill(client)
        traces = traces_of(client, cases[GONE])
    shutil.copytree(data / "library", tmp_path / "copy")
    with serving(data) as server, Client(server.address) as client:
        assert client.erase(study_uid=cases[GONE][0].facts.study_uid) == IMAGES
        # Added after the erasure, so that it is none of it.
        (again,) = client.add([AddItem("again", scan(0, GONE))])
        assert again.outcome == "added"
    shutil.rmtree(data / "library")
    shutil.copytree(tmp_path / "copy", data / "library")
    with serving(data) as server, Client(server.address) as client:
        assert {case.facts.patient_id for case in client.cases()} == set(OTHERS)
        targets = [(each.target, each.case_count, each.found_again_count) for each in client.library.erasures()]
        assert targets == [("replay", IMAGES, 0), ("study", IMAGES, 0)]
        assert found_in(data, traces) == set()
    with serving(data) as server, Client(server.address) as client:
        assert len(list(client.library.erasures())) == 2  # once is enough


def test_an_import_does_not_bring_it_back(tmp_path: Path) -> None:
    with serving(tmp_path) as server, Client(server.address) as client:
        fill(client)
        identity, kept = client.transfer.identity(), list(client.transfer.export())
        client.erase(patient_id=GONE)
        ((size, counts),) = client.transfer.import_cases(identity, [kept])
        assert (size, counts.erased, counts.unchanged) == (len(kept), IMAGES, len(OTHERS) * IMAGES)
        assert {case.facts.patient_id for case in client.cases()} == set(OTHERS)


def test_kill_in_the_middle_of_an_erasure_is_made_good(tmp_path: Path) -> None:
    """What was acknowledged is erased; what was begun is ended; what was not begun is whole."""
    chance = random.Random(5)
    ended = 0
    for number in range(4):
        data = tmp_path / str(number)
        with serving(data) as server, Client(server.address) as client:
            cases = fill(client)
            traces = traces_of(client, cases[GONE])
            killer = threading.Timer(chance.uniform(0, 0.25), server.process.kill)
            killer.start()
            told: Erasure | None = None
            with suppress(NearcaseError):
                _, told = client.library.erase(patient_id=GONE)
            killer.join()
            server.process.wait(timeout=20)
        with serving(data) as server, Client(server.address) as client:
            left = [case for case in client.cases() if case.facts.patient_id == GONE]
            certificates = list(client.library.erasures())
            assert len(left) in (0, IMAGES)
            assert [each.case_count for each in certificates] == ([] if left else [IMAGES])
            assert told is None or certificates == [told]
            if not left:
                ended += 1
                assert found_in(data, traces) == set()
            assert client.statistics().case_count == len(left) + len(OTHERS) * IMAGES
    assert ended  # else nothing was tried


def test_a_ledger_that_is_gone_stops_the_start(tmp_path: Path) -> None:
    options = ("--settings", str(ledger_elsewhere(tmp_path)))
    with serving(tmp_path / "data", *options) as server, Client(server.address) as client:
        fill(client)
        client.erase(patient_id=GONE)
    assert not (tmp_path / "data" / "erasures.jsonl").exists()
    (tmp_path / "elsewhere" / "ledger.jsonl").unlink()
    with pytest.raises(NearcaseError, match="ledger"), serving(tmp_path / "data", *options):
        pass


def ledger_elsewhere(folder: Path) -> Path:
    settings = folder / "settings.toml"
    settings.write_text(f'erasures = "{folder / "elsewhere" / "ledger.jsonl"}"\n')
    return settings


def fill(client: Client) -> dict[str, list[Case]]:
    """Labelled images of each patient."""
    items = [
        AddItem(f"{patient}-{number}", scan(100 * place + number, patient), {"mass": str(number % 2)})
        for place, patient in enumerate((GONE, *OTHERS))
        for number in range(IMAGES)
    ]
    assert not [result.error for result in client.add(items) if result.error]
    found: dict[str, list[Case]] = {}
    for case in client.cases():
        found.setdefault(case.facts.patient_id, []).append(client.case(case.case_id))
    return found


def leave_an_unfinished_upload(address: str) -> None:
    """Half of another patient's file: whose it is can not be known, and it may stay."""
    data = scan(77, "KEEP-9")
    start = library_pb2.AddImagesStart(
        request_id="half",
        size_bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        data=data[: len(data) // 2],
    )
    with grpc.insecure_channel(address) as channel:
        stub = library_pb2_grpc.LibraryServiceStub(channel)
        list(stub.AddImages(iter([library_pb2.AddImagesRequest(start=start)])))


def traces_of(client: Client, cases: list[Case]) -> dict[str, bytes]:
    """What the cases could be known by in a file: text, binary ids, any aligned 64 bytes of a vector, pictures."""
    wanted = {case.case_id: number for number, case in enumerate(cases)}
    traces: dict[str, bytes] = {}
    for stored in client.transfer.export():
        if stored.case.case_id in wanted:
            number = wanted[stored.case.case_id]
            raw = np.asarray(stored.vector, dtype="<f4").tobytes()
            traces |= {f"vector {number} at {at}": raw[at : at + 64] for at in range(0, len(raw) - 63, 64)}
    for number, case in enumerate(cases):
        facts, picture = case.facts, base64.b64encode(case.thumbnail_jpeg)
        words = (facts.study_uid, facts.series_uid, facts.instance_uid, case.content_sha256, case.case_id)
        names = ("study", "series", "instance", "file", "case")
        traces |= {f"{name} {number}": word.encode() for name, word in zip(names, words, strict=True)}
        traces |= {
            f"patient {number}": facts.patient_id.encode(),
            f"case {number} in 16 bytes": uuid.UUID(case.case_id).bytes,
            f"case {number} in 16 bytes turned": uuid.UUID(case.case_id).bytes_le,
            f"file {number} in 32 bytes": bytes.fromhex(case.content_sha256),
            # The tail is of this picture; the head of a JPEG is the same in all.
            f"picture {number}": case.thumbnail_jpeg[-64:],
            f"picture {number} as text": picture[-80:-20],
        }
    return traces


def found_in(folder: Path, traces: dict[str, bytes]) -> set[str]:
    """Which traces are in which files, and in names of files."""
    found = set()
    for path in folder.rglob("*"):
        data = (filled(path) if path.is_file() else b"") + str(path.relative_to(folder)).encode()
        found |= {f"{name} in {path.relative_to(folder)}" for name, trace in traces.items() if trace in data}
    return found


def filled(path: Path) -> bytes:
    """The file without its blocks of zeros, of which the engine's files are made for the most part."""
    data = path.read_bytes()
    return b"".join(data[at : at + BLOCK] for at in range(0, len(data), BLOCK) if data[at : at + BLOCK] != ZEROS)
