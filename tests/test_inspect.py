"""nearcase inspect, render, add and search on series and NIfTI files, as a user types them."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from nifti_files import nifti_file
from PIL import Image as PillowImage
from series_files import anatomy, ct_slice, written
from serving import serving

from nearcase.types import CaseFacts


def run(*arguments: object, server: str = "127.0.0.1:1") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-m", "nearcase", *map(str, arguments)]
    environment = {"NEARCASE_SERVER": server, "PATH": "/usr/bin:/bin", "COLUMNS": "140"}
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A series with a gap, a localiser and a text file."""
    folder = tmp_path_factory.mktemp("series")
    written(folder, [*[ct_slice(z) for z in (0, 1, 2, 5)], ct_slice(9, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])])
    (folder / "notes.txt").write_text("hello")
    return folder


@pytest.mark.system
def test_inspect_tells_what_volume_a_folder_holds(folder: Path) -> None:
    done = run("inspect", folder, "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["left_out"] == {"expected a DICOM file, got other bytes": 1}
    (series,) = told["series"]
    assert (series["shape"], series["spacing_mm"], series["unit"]) == ([4, 4, 5], [2.0, 0.5, 0.25], "HU")
    assert series["findings"] == ["1 localiser left out", "gap of 6.00 mm after slice 3: 2 slices missing"]
    assert set(series["facts"]) < {field.name for field in dataclasses.fields(CaseFacts)}
    assert "gap of 6.00 mm" in run("inspect", folder).stdout


@pytest.mark.system
def test_render_draws_slices_in_the_order_of_positions(folder: Path, tmp_path: Path) -> None:
    done = run("render", folder, "--frame", 4, "--window=40/400", "--out", tmp_path / "x.png")
    assert done.returncode == 0, done.stderr
    assert "slice 4 of 4" in done.stdout
    values = 2.0 * anatomy(5) - 1000
    expected = np.rint(255 * np.clip((values - 39.5) / 399 + 0.5, 0, 1))
    with PillowImage.open(tmp_path / "x.png") as drawn:
        np.testing.assert_array_equal(np.asarray(drawn), expected)


@pytest.mark.system
def test_folder_without_a_series_is_one_line_and_exit_2(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    for arguments in (("inspect", tmp_path), ("render", tmp_path, "--out", tmp_path / "x.png")):
        done = run(*arguments)
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 1


@pytest.mark.system
def test_nifti_is_inspected_drawn_added_and_found(tmp_path: Path) -> None:
    voxels = np.random.default_rng(1).integers(0, 999, (40, 50, 9)).astype(np.int16)
    file = tmp_path / "volume.nii.gz"
    file.write_bytes(nifti_file(voxels, zipped=True))
    told = json.loads(run("inspect", file, "--json").stdout)
    assert told["media_type"] == "application/x-nifti"
    assert told["volume"]["shape"] == [9, 50, 40]
    assert (told["frame_number"], told["frame_count"]) == (5, 9)
    assert run("render", file, "--frame", "9", "--out", tmp_path / "x.png").returncode == 0
    with PillowImage.open(tmp_path / "x.png") as drawn:
        assert drawn.size == (40, 50)
    with serving(tmp_path / "library") as server:
        added = run("add", file, server=server.address)
        assert "1 added" in added.stdout, added.stderr
        found = json.loads(run("search", file, "--own-patient", "--json", server=server.address).stdout)
    assert found["query"][0]["rules"][0] == "axial slice 5 of 9"
    assert found["hits"][0]["similarity"] == pytest.approx(1.0, abs=1e-4)
