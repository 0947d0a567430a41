"""From an empty environment to the first report: `nearcase[evaluation]` brings no server, no runtime and no torch."""

from __future__ import annotations

import csv
import json
import random
import subprocess
from pathlib import Path

import pytest
from environments import environment_in, installed_in, run

SERVER = {"onnxruntime", "torch", "torchvision", "qdrant_edge_py", "qdrant_client", "pydicom", "imagecodecs", "pillow"}
"""Distributions of the server and of model building."""

MODULES = ("onnxruntime", "torch", "qdrant_edge", "pydicom", "imagecodecs", "PIL", "grpc", "google.protobuf")
SERVED = ("nearcase.client", "nearcase.encode", "nearcase.index", "nearcase.intake", "nearcase.serve", "nearcase.v1")

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    requirement = f"nearcase[evaluation] @ {wheel.as_uri()}"
    return environment_in(tmp_path_factory.mktemp("evaluation"), requirement, timeout_s=600)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """400 patients, one image each: half of them women, a score that is right more often than not."""
    draw = random.Random(1)
    with (tmp_path / "scores.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(("patient_id", "sex", "age", "label", "score"))
        for place in range(400):
            label = int(draw.random() < 0.3)
            writer.writerow((place, "FM"[place % 2], 20 + place % 70, label, round(draw.random() + 0.4 * label, 3)))
    return tmp_path / "scores.csv"


def test_it_brings_nothing_of_the_server(python: Path) -> None:
    installed = installed_in(python)
    assert installed >= {"nearcase", "numpy", "scipy", "numba", "fairlearn", "scikit_learn", "click", "jinja2"}
    assert not installed & SERVER


def test_the_first_report(python: Path, table: Path, tmp_path: Path) -> None:
    out = tmp_path / "audit"
    command = [str(python.with_name("nearcase-audit")), "run", str(table), "--op", "sens=0.9", "--out", str(out)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert done.returncode in (0, 1, 3), done.stderr
    assert "Warning" not in done.stderr
    assert "verdict:" in done.stdout
    report = json.loads((out / "report.json").read_text("utf-8"))
    assert report["run"]["rows"] == 400
    assert report["overall"][0]["auroc"]["low"] > 0.5
    assert {each["attribute"] for each in report["groups"]} == {"sex", "age"}
    assert "<h1" in (out / "report.html").read_text("utf-8")


def test_the_command_imports_none_of_the_servers_packages(python: Path, table: Path, tmp_path: Path) -> None:
    arguments = ["run", str(table), "--boot", "0", "--out", str(tmp_path / "audit")]
    code = (
        "import sys\n"
        "from nearcase_eval.audit_cli import group\n"
        f"group.main({arguments!r}, standalone_mode=False)\n"
        f"print([name for name in {(*MODULES, *SERVED)!r} if name in sys.modules])\n"
    )
    done = run(python, code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_server_command_says_which_extra_is_missing(python: Path) -> None:
    command = [str(python.with_name("nearcase")), "serve"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "nearcase[server" in done.stderr
