"""`nearcase search` with a whole series, as a user types it, and which slices of a large one are sent."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from serving import scan, serving

from nearcase.cli.query import read_query
from nearcase.cli.volume import spread
from nearcase.client import AddItem, Client
from nearcase.errors import InvalidInput

SLICES = 5


def slices(patient: int) -> list[bytes]:
    """One series of parallel slices."""
    return [
        scan(
            100 * patient + number,
            f"P{patient}",
            SOPInstanceUID=f"1.2.9.{patient}.{number}",
            ImagePositionPatient=[0.0, 0.0, 3.0 * number],
            ImageOrientationPatient=[1.0, 0.0, 0.0, 0.0, 1.0, 0.0],
            PixelSpacing=[1.0, 1.0],
            FrameOfReferenceUID=f"1.2.9.{patient}",
        )
        for number in range(SLICES)
    ]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(tmp_path_factory.mktemp("series")) as running, Client(running.address) as client:
        items = [
            AddItem(f"{patient}-{number}", file) for patient in range(4) for number, file in enumerate(slices(patient))
        ]
        assert not [result.error for result in client.add(items) if result.error]
        yield running.address


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The series of a patient who is in the library."""
    made = tmp_path_factory.mktemp("query")
    for number, data in enumerate(slices(2)):
        (made / f"{number}.dcm").write_bytes(data)
    return made


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-m", "nearcase", "search", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.mark.system
def test_a_folder_finds_its_series_and_never_its_own_patient(server: str, folder: Path, tmp_path: Path) -> None:
    found = json.loads(run(folder, "--own-patient", "--json", "--server", server).stdout)
    assert found["notes"] == [f"{SLICES} of {SLICES} slices"]
    assert found["hits"][0]["facts"]["patient_id"] == "P2"
    assert found["hits"][0]["matched_count"] == SLICES
    assert len(found["hits"]) == 4
    page = tmp_path / "page.html"
    voted = run(folder, "--series-method", "frequency", "--report", page, "--server", server)
    assert voted.returncode == 0, voted.stderr
    assert "ranked by" in voted.stdout
    assert "P2" not in voted.stdout
    assert "Ranked by" in page.read_text()
    assert f"{SLICES} of {SLICES} slices" in page.read_text()


@pytest.mark.system
def test_stored_series_unlike_and_files(server: str, folder: Path) -> None:
    file = folder / "0.dcm"
    uid = json.loads(run(file, "--json", "--own-patient", "-k", 1, "--server", server).stdout)
    series = uid["hits"][0]["facts"]["series_uid"]
    stored = json.loads(run("--series", series, "--json", "--server", server).stdout)
    assert [hit["facts"]["patient_id"] for hit in stored["hits"]].count("P2") == 0
    assert stored["query"][0]["image_count"] == SLICES
    files = [folder / f"{number}.dcm" for number in range(SLICES)]
    several = json.loads(run(*files, "--json", "--server", server).stdout)
    assert {hit["case_id"] for hit in several["hits"]} == {hit["case_id"] for hit in stored["hits"]}
    unlike = run(file, "--unlike", files[1], "--group-by", "patient", "--json", "--server", server)
    assert len(json.loads(unlike.stdout)["hits"]) == 3
    refused = run(file, "--pooling", "max", "--server", server)
    assert (refused.returncode, len(refused.stderr.strip().splitlines())) == (2, 1)


def test_what_is_asked_about_is_said_in_one_line(folder: Path) -> None:
    with pytest.raises(InvalidInput, match="something to ask about"):
        read_query((), None, "", "", "", most=5)
    with pytest.raises(InvalidInput, match="one folder"):
        read_query((folder, folder / "0.dcm"), None, "", "", "", most=5)
    with pytest.raises(InvalidInput, match="--frame"):
        read_query((folder,), 2, "", "", "", most=5)
    some = read_query((folder,), None, "", "", "", most=3)
    assert [str(each.image)[-5:] for each in some.examples] == ["0.dcm", "2.dcm", "4.dcm"]
    assert some.notes == (f"3 of {SLICES} slices, evenly spaced",)


def test_what_fits_is_evenly_spaced() -> None:
    every = [(Path(str(number)), 1) for number in range(10)]
    sizes = [10] * 10
    assert spread(every, sizes, most=100, most_bytes=100) == tuple(every)
    assert len(spread(every, sizes, most=100, most_bytes=99)) == 9
    assert spread(every, sizes, most=1, most_bytes=99) == (every[4],)
    places = [int(path.name) for path, _ in spread(every, sizes, most=4, most_bytes=100)]
    assert places == sorted(set(places))
    with pytest.raises(InvalidInput, match="at most 9 bytes"):
        spread(every, sizes, most=10, most_bytes=9)
