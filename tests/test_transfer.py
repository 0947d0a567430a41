"""Export and import through real servers: what arrives is what left, whatever was killed on the way."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_library import CARD, fill
from qdrant_indexes import in_memory
from serving import serving
from stored_cases import equal, stored_cases

from nearcase.client import Client
from nearcase.clock import SystemClock
from nearcase.errors import InvalidInput, NearcaseError, Unready
from nearcase.index.edge.index import EdgeIndex
from nearcase.index.exact import ExactIndex
from nearcase.index.qdrant.identity import Identity
from nearcase.retrieve.bulk import pages
from nearcase.retrieve.library import Library
from nearcase.transfers import ImportCounts, StoredCase

pytestmark = pytest.mark.system

CASES = stored_cases(150, dimension=CARD.dimension)


def run(*arguments: object, server: str, expected: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-m", "nearcase", *map(str, arguments)]
    environment = {"NEARCASE_SERVER": server, "PATH": "/usr/bin:/bin", "COLUMNS": "140"}
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert result.returncode == expected, result.stderr
    return result


def all_of(client: Client, where: str = "") -> list[StoredCase]:
    return list(client.transfer.export(where))


def same(found: list[StoredCase], expected: list[StoredCase]) -> bool:
    return len(found) == len(expected) and all(map(equal, found, expected))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server whose library has cases with flags, histories, labels and thumbnails."""
    data = tmp_path_factory.mktemp("source")
    fill(data, [(stored.case, stored.vector) for stored in CASES])
    with serving(data) as server:
        yield server.address


@pytest.fixture(scope="module")
def exported(source: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exports") / "all"
    told = json.loads(run("library", "export", folder, "--json", server=source).stdout)
    assert (told["case_count"], told["changed_meanwhile"]) == (len(CASES), False)
    return folder


def test_an_export_has_every_case_bit_for_bit(source: str) -> None:
    with Client(source) as client:
        assert same(all_of(client), CASES)
        women = [stored for stored in CASES if stored.case.facts.sex == "F"]
        assert same(all_of(client, "sex = F"), women)
        identity = client.transfer.identity("sex = F")
        assert (identity.encoder_identity, identity.case_count) == (CARD.identity, len(women))
        half = CASES[70].case.case_id
        assert same(list(client.transfer.export(after_case_id=half)), CASES[71:])
        with pytest.raises(InvalidInput):
            all_of(client, "nothing = 1")
        with pytest.raises(InvalidInput):
            list(client.transfer.export(after_case_id="x"))


def test_a_client_that_stops_reading_leaves_the_server_well(source: str) -> None:
    with Client(source) as client:
        for _ in range(5):
            assert next(client.transfer.export()).case == CASES[0].case
        assert same(all_of(client), CASES)


@pytest.fixture(scope="module")
def target(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server into whose empty library the export was imported."""
    with serving(tmp_path_factory.mktemp("target")) as server:
        answer = run("library", "import", exported, "--json", server=server.address)
        assert json.loads(answer.stdout) == {"added": 150, "unchanged": 0, "replaced": 0, "erased": 0}
        yield server.address


def test_the_round_trip_is_the_same_library(source: str, target: str, exported: Path) -> None:
    with Client(target) as there, Client(source) as here:
        assert there.transfer.identity().snapshot == here.transfer.identity().snapshot
        assert same(all_of(there), CASES)
        for stored in [each for each in CASES if not each.case.flags][:8]:
            ours, theirs = (client.search(case_id=stored.case.case_id, k=8).hits for client in (here, there))
            assert [hit.case for hit in ours] == [hit.case for hit in theirs]
            assert [hit.similarity for hit in ours] == [hit.similarity for hit in theirs]
    assert run("library", "import", exported, server=target).stdout == "150 unchanged\n"


def test_what_was_decided_here_stays(target: str, exported: Path) -> None:
    """A consent that was withdrawn, a correction, and an erasure, all after the export."""
    flagged, relabelled = [stored.case.case_id for stored in CASES if not stored.case.flags and stored.case.labels][:2]
    patient = next(stored.case.facts.patient_id for stored in reversed(CASES) if stored.case.facts.patient_id)
    theirs = [stored for stored in CASES if stored.case.facts.patient_id == patient]
    with Client(target) as client:
        client.library.update(case_id=flagged, set_flags=("no-consent",))
        client.library.update(case_id=relabelled, labels={"mass": "unclear"}, changed_by="a test")
        client.library.erase(patient_id=patient, patient_id_issuer="H")
        told = json.loads(run("library", "import", exported, "--json", server=target).stdout)
        assert told == {"added": 0, "unchanged": 150 - len(theirs), "replaced": 0, "erased": len(theirs)}
        assert client.case(flagged).flags == ("no-consent",)
        assert client.case(relabelled).labels["mass"] == "unclear"
        assert len(all_of(client)) == 150 - len(theirs)


def test_another_encoder_or_key_is_refused_in_one_line(exported: Path, source: str, tmp_path: Path) -> None:
    stated = json.loads((exported / "export.json").read_text())
    for key, value in (("encoder_identity", "other:1:2:fp32"), ("pseudonym_check", "ab")):
        folder = tmp_path / key
        folder.mkdir()
        (folder / "export.json").write_text(json.dumps(stated | {key: value}))
        for part in exported.glob("part-*"):
            (folder / part.name).hardlink_to(part)
        refused = run("library", "import", folder, server=source, expected=2)
        assert len(refused.stderr.splitlines()) == 1
        assert "encoder" in refused.stderr or "de-identified" in refused.stderr


def test_a_corrupt_part_ends_the_import_and_what_came_stays(source: str, tmp_path: Path) -> None:
    from nearcase.exchange.writing import export_folder

    with Client(source) as client:
        identity = client.transfer.identity()
    with export_folder(tmp_path / "out", identity, "", now="", version="") as writer:
        list(writer.write(iter(CASES), rows_per_part=64))
        writer.finish(identity.snapshot)
    path = tmp_path / "out" / "part-00001.parquet"
    path.write_bytes(path.read_bytes()[:-1] + b"X")
    with serving(tmp_path / "data") as target, Client(target.address) as client:
        refused = run("library", "import", tmp_path / "out", server=target.address, expected=2)
        assert "part-00001.parquet" in refused.stderr
        assert same(all_of(client), CASES[:64])
        told = json.loads(
            run(
                *("library", "import", tmp_path / "out", "--from-part", "part-00002.parquet", "--json"),
                server=target.address,
            ).stdout
        )
        assert told["added"] == len(CASES) - 128


def test_the_server_checks_what_a_client_sends(source: str) -> None:
    good = CASES[0]
    bad = [
        StoredCase(good.case, good.vector * 2),
        StoredCase(good.case, good.vector[:5]),
        StoredCase(replace(good.case, case_id="x"), good.vector),
        StoredCase(replace(good.case, labels={"a b": "1"}), good.vector),
    ]
    with Client(source) as client:
        identity = client.transfer.identity()
        for stored in bad:
            with pytest.raises(InvalidInput, match="case 2 of this batch"):
                list(client.transfer.import_cases(identity, [[good, stored]]))
        with pytest.raises(InvalidInput, match="can not be compared"):
            list(client.transfer.import_cases(replace(identity, dimension=3), [[good]]))
        assert list(client.transfer.import_cases(identity, [])) == []
        assert list(client.transfer.import_cases(identity, [[good, good]])) == [(2, ImportCounts(unchanged=2))]
        assert same(all_of(client), CASES)


def test_an_error_of_the_cases_is_the_callers(source: str) -> None:
    def failing() -> Iterator[list[StoredCase]]:
        yield CASES[:3]
        raise Unready("the disk is gone")

    with Client(source) as client, pytest.raises(Unready, match="the disk is gone"):
        list(client.transfer.import_cases(client.transfer.identity(), failing()))


# Killed on the way


def batches() -> Iterator[list[StoredCase]]:
    """Slow enough to be interrupted."""
    for at in range(0, len(CASES), 10):
        yield CASES[at : at + 10]
        time.sleep(0.02)


def test_a_killed_server_has_what_it_answered_and_takes_the_rest(tmp_path: Path) -> None:
    answered = 0
    with serving(tmp_path) as server, Client(server.address) as client:
        identity = client.transfer.identity()
        killer = threading.Timer(0.05, server.process.kill)
        answers = client.transfer.import_cases(identity, slowly())
        with contextlib.suppress(NearcaseError):
            for count, _ in answers:
                answered += count
                if answered == count:
                    killer.start()
        killer.join()
    with serving(tmp_path) as server, Client(server.address) as client:
        kept = all_of(client)
        assert len(kept) >= min(answered, len(CASES)) > 0
        assert all(equal(stored, known(stored)) for stored in kept)
        counts = sum((each for _, each in client.transfer.import_cases(identity, batches())), ImportCounts())
        assert counts == ImportCounts(added=len(CASES) - len(kept), unchanged=len(kept))
        assert same(all_of(client), CASES)


def slowly() -> Iterator[list[StoredCase]]:
    while True:  # until the server is gone
        yield from batches()


def known(stored: StoredCase) -> StoredCase:
    return next(each for each in CASES if each.case.case_id == stored.case.case_id)


def test_a_killed_import_is_started_again(exported: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "nearcase", "library", "import", str(exported)]
    with serving(tmp_path) as server, Client(server.address) as client:
        environment = os.environ | {"NEARCASE_SERVER": server.address}
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and client.statistics().case_count == 0:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
        run("library", "import", exported, server=server.address)
        assert same(all_of(client), CASES)


def test_a_killed_export_goes_on(source: str, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    command = [sys.executable, "-m", "nearcase", "library", "export", str(folder)]
    environment = os.environ | {"NEARCASE_SERVER": source}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not folder.exists():
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    told = json.loads(run("library", "export", folder, "--json", server=source).stdout)
    assert told["case_count"] == len(CASES)
    assert run("library", "export", folder, server=source, expected=2).stderr.count("\n") == 1


# Between tiers


async def test_every_tier_gives_out_and_takes_in_the_same(tmp_path: Path) -> None:
    """Memory to the embedded engine to Qdrant, in its client's memory, and back."""
    edge = await EdgeIndex.open(tmp_path, CARD.dimension)
    qdrant = await in_memory(Identity(CARD.dimension, CARD.identity))
    names = set()
    cases: list[StoredCase] = CASES
    for index in (ExactIndex(CARD.dimension), edge, qdrant, ExactIndex(CARD.dimension)):
        library = Library(index, SystemClock())
        for at in range(0, len(cases), 64):
            await library.put(cases[at : at + 64], lambda case: False)
        cases = [stored async for page in pages(index, page_size=50) for stored in page]
        if index is not qdrant:  # a shared library names its states itself
            names.add(await library.snapshot())
        assert same(cases, CASES)
    assert len(names) == 1
    await edge.close()
    await qdrant.close()


async def test_putting_while_adding_and_erasing_keeps_the_snapshot_true(tmp_path: Path) -> None:
    index = ExactIndex(CARD.dimension)
    library = Library(index, SystemClock())
    await library.snapshot()
    some = np.array_split(np.arange(len(CASES)), 5)
    await asyncio.gather(*(library.put([CASES[at] for at in part], lambda case: False) for part in some))
    assert await library.snapshot() == await Library(index, SystemClock()).snapshot()
