"""What README and the guides tell people to type works as printed, against a real server."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
NEARCASE = Path(sys.executable).with_name("nearcase")
PRINTED_ADDRESS = "127.0.0.1:50051"

pytestmark = pytest.mark.system


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (PROJECT / page).read_text(), re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, pydicom_data: Path) -> Path:
    """A folder with the files that the pages speak of; RG1 (64 years) and RG3 are radiographs of two patients."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "scans").mkdir()
    shutil.copy(pydicom_data / "RG3_UNCR.dcm", folder / "film.dcm")
    shutil.copy(pydicom_data / "RG1_UNCR.dcm", folder / "scans" / "a.dcm")
    shutil.copy(pydicom_data / "693_UNCR.dcm", folder / "scans" / "b.dcm")
    (folder / "outcomes.csv").write_text("image,label_fracture,age_years\na.dcm,yes,61\nb.dcm,no,45\n")
    return folder


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    """Starts `nearcase serve` as README does, on a free port."""
    command = [str(NEARCASE), "serve", "--data", str(folder / "my-library"), "--listen", "127.0.0.1:0", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield str(json.loads(process.stdout.readline())["address"])
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0
        process.stdout.close()


@pytest.fixture(scope="module")
def typed(folder: Path, address: str) -> dict[str, str]:
    """Each client command of README, typed in its order, with what it printed."""
    lines = [line for block in blocks("README.md", "sh") for line in block.splitlines()]
    commands = [line for line in lines if re.match(r"nearcase (add|search) ", line)]
    return {line: run([str(NEARCASE), *shlex.split(line)[1:]], folder, address) for line in commands}


def run(command: list[str], folder: Path, address: str) -> str:
    environment = os.environ | {"NEARCASE_SERVER": address}
    result = subprocess.run(
        command, cwd=folder, env=environment, check=False, capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_first_session_of_readme_works(typed: dict[str, str], folder: Path) -> None:
    added, found = typed.values()
    assert "2 added" in added
    assert "fracture=yes" in found
    assert "not medical" in found
    assert "fracture" in (folder / "evidence.html").read_text()


@pytest.mark.parametrize("page", ["README.md", "docs/api.md"])
def test_python_of_the_page_finds_the_radiograph(page: str, folder: Path, address: str, typed: dict[str, str]) -> None:
    (code,) = blocks(page, "python")
    assert PRINTED_ADDRESS in code
    printed = run([sys.executable, "-W", "error", "-c", code.replace(PRINTED_ADDRESS, address)], folder, address)
    assert re.match(r"-?\d\.\d{3} CR \{'fracture': 'yes'\}", printed)


@pytest.mark.parametrize("words", ["inspect film.dcm", "render film.dcm --out frame.png", "embed film.dcm --out v.npz"])
def test_commands_without_a_server_work(words: str, folder: Path) -> None:
    run([str(NEARCASE), *words.split()], folder, "127.0.0.1:1")
