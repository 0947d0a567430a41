"""The bill of materials: what ships, and under which licences."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from test_house import is_copyleft

PROJECT = Path(__file__).parents[1]
SCRIPT = PROJECT / "helm" / "licences.py"
LICENCES: dict[str, Any] = runpy.run_path(str(SCRIPT))


def bill(*licences: dict[str, Any] | None) -> dict[str, Any]:
    parts = [
        {"name": f"p{number}", "version": "1", **({"licenses": [each]} if each else {})}
        for number, each in enumerate(licences)
    ]
    return {"components": parts, "metadata": {"component": {"name": "nearcase", "version": "2", "licenses": [MIT]}}}


MIT = {"license": {"id": "MIT"}}
GPL = {"license": {"name": "License :: OSI Approved :: GNU General Public License v3 (GPLv3)"}}


def run(folder: Path, told: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    (folder / "bill.json").write_text(json.dumps(told))
    (folder / "packages").mkdir(exist_ok=True)
    paths = [SCRIPT, folder / "bill.json", folder / "page.md", folder / "packages"]
    command = [sys.executable, *map(str, paths)]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("licence", "told"),
    [
        (GPL, "GPLv3"),
        ({"expression": "MIT AND AGPL-3.0-only"}, "AGPL-3.0-only"),
        ({"license": {"name": "UNKNOWN"}}, "no licence is stated"),
        (None, "no licence is stated"),
    ],
)
def test_what_can_not_ship_is_refused(licence: dict[str, Any] | None, told: str, tmp_path: Path) -> None:
    done = run(tmp_path, bill(MIT, licence))
    assert done.returncode == 1
    assert f"p1 1: {told}" in done.stderr or told in done.stderr


def test_what_can_ship_is_listed(tmp_path: Path) -> None:
    exception = {"expression": "BSD-3-Clause AND GPL-3.0-or-later WITH GCC-exception-3.1"}
    assert run(tmp_path, bill(MIT, exception, {"license": {"id": "LGPL-2.1-or-later"}})).returncode == 0
    page = (tmp_path / "page.md").read_text()
    assert "| nearcase | 2 | MIT |" in page
    assert "| p2 | 1 | LGPL-2.1-or-later |" in page


@pytest.mark.parametrize(
    "licence", ["GPL-2.0", "LGPL-3.0", "AGPL-3.0", "MIT", "Affero thing", "GNU Lesser General Public License"]
)
def test_the_script_and_the_house_tell_gpl_alike(licence: str) -> None:
    assert LICENCES["Shipped"]("a", "1", licence).is_refused is is_copyleft(licence)


def test_a_licence_in_words_completes_the_bill(tmp_path: Path) -> None:
    about = tmp_path / "packages" / "p0-1.dist-info" / "METADATA"
    about.parent.mkdir(parents=True)
    about.write_text("Metadata-Version: 2.1\nName: p0\nVersion: 1\nLicense: 3-Clause BSD License\n")
    assert run(tmp_path, bill(None)).returncode == 0
    completed = json.loads((tmp_path / "bill.json").read_text())
    assert LICENCES["licence_of"](completed["components"][0]) == "3-Clause BSD License"


@pytest.mark.slow
def test_make_sbom_lists_all_that_ships(tmp_path: Path) -> None:
    """In a copy of the sources, so that the project's own files stay as they are."""
    schema = pytest.importorskip("cyclonedx.validation.json", reason="cyclonedx-bom: pip install nearcase[dev]")
    from cyclonedx.schema import SchemaVersion

    copy = tmp_path / "nearcase"
    shutil.copytree(PROJECT, copy, ignore=shutil.ignore_patterns(".*", "build", "dist", "__pycache__", "tests", "docs"))
    (copy / ".venv" / "bin").mkdir(parents=True)
    recipe = subprocess.run(
        ["make", "-n", "-o", ".venv/test-ready", "-o", ".venv/made", "sbom"],
        cwd=copy,
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    ).stdout
    # Its tools are those of this environment: a copied checkout has none.
    script = recipe.replace(".venv/bin/", f"{Path(sys.executable).parent}/")
    done = subprocess.run(
        ["sh", "-e", "-c", script], cwd=copy, check=False, capture_output=True, text=True, timeout=540
    )
    assert done.returncode == 0, done.stdout + done.stderr
    text = (copy / "dist" / "nearcase.cdx.json").read_text()
    assert schema.JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    listed = json.loads(text)
    packages = {part["name"].lower().replace("_", "-"): part for part in listed["components"]}
    (site,) = (copy / "build" / "sbom" / "lib").glob("python*/site-packages")
    there = {each.name.split("-")[0].lower().replace("_", "-") for each in site.glob("*.dist-info")} - {"nearcase"}
    assert set(packages) == there
    assert {"grpcio", "numpy", "onnxruntime", "imagecodecs", "qdrant-client", "pyarrow", "pydicom"} <= there
    assert listed["metadata"]["component"]["name"] == "nearcase"
    for part in packages.values():
        assert part["version"], part["name"]
        assert LICENCES["licence_of"](part), part["name"]
        assert not is_copyleft(LICENCES["licence_of"](part)), part["name"]
    assert os.path.getsize(copy / "dist" / "licences.md") > 1000
