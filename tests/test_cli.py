"""The commands as a user types them, against a real server: what they print, write, and exit with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PillowImage
from serving import picture, scan, serving
from tiny_encoders import picture_recipe

from nearcase.encode.preprocess import normalise, resize
from nearcase.encode.runtime import open_encoder
from nearcase.intake.files import read_image

pytestmark = pytest.mark.system


def run(*arguments: object, server: str = "127.0.0.1:1") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-m", "nearcase", *map(str, arguments)]
    environment = {"NEARCASE_SERVER": server, "PATH": "/usr/bin:/bin", "COLUMNS": "140"}
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six scans with labels, two pictures, one file that is no image, and hidden files."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "scans").mkdir()
    rows = ["image,label_mass,age,sex,modality,patient_id"]
    for seed in range(6):
        (folder / "scans" / f"{seed}.dcm").write_bytes(scan(seed))
        rows.append(f"{seed}.dcm,{seed % 2},,,,")
    for seed in (10, 11):
        (folder / "scans" / f"{seed}.png").write_bytes(picture(seed))
        rows.append(f"scans/{seed}.png,1,{seed + 30},F,XC,PNG{seed}")
    (folder / "scans" / "broken.dcm").write_bytes(scan(7)[:400])
    (folder / "scans" / ".hidden").write_bytes(b"x")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, files: Path) -> Iterator[str]:
    with serving(tmp_path_factory.mktemp("library")) as running:
        added = run(
            "add", files / "scans", "--labels", files / "labels.csv", "--source", "a test", server=running.address
        )
        assert added.returncode == 2, added.stderr  # one file is no image
        assert "8 added, 1 refused" in added.stdout
        assert added.stderr.count("refused") == 1
        assert "broken.dcm" in added.stderr
        yield running.address


def test_adding_again_changes_nothing(server: str, files: Path) -> None:
    again = run("add", files / "scans", "--labels", files / "labels.csv", "--source", "a test", "--json", server=server)
    assert json.loads(again.stdout)["counts"] == {"unchanged": 8, "refused": 1}


def test_search_prints_neighbours_votes_and_what_the_encoder_is(server: str, files: Path) -> None:
    found = run("search", files / "scans" / "0.dcm", "-k", "3", server=server)
    assert found.returncode == 0, found.stderr
    assert "not medical" in found.stdout
    assert "mass =" in found.stdout
    assert "a test" in found.stdout


def test_search_json_holds_filtered_hits_and_shares(server: str, files: Path) -> None:
    found = run("search", files / "scans" / "0.dcm", "--filter", "modality = XC and age > 40", "--json", server=server)
    answer = json.loads(found.stdout)
    assert [hit["facts"]["age_years"] for hit in answer["hits"]] == [41.0]
    assert answer["hits"][0]["labels"] == {"mass": "1"}
    assert answer["votes"][0]["votes"] == [{"value": "1", "share": 1.0, "count": 1}]
    assert answer["encoder"]["is_medical"] is False
    assert answer["candidate_count"] == 1


def test_search_writes_a_page_with_the_pictures(server: str, files: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    assert run("search", files / "scans" / "0.dcm", "-k", "2", "--report", page, server=server).returncode == 0
    text = page.read_text()
    assert text.count("data:image/jpeg;base64,") == 3
    assert "not medical" in text


def test_bad_input_is_one_line_and_exit_2(server: str, files: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.csv"
    wrong.write_text("file\nx\n")
    empty = tmp_path / "empty"
    empty.mkdir()
    scan_file = files / "scans" / "0.dcm"
    for arguments in (
        ("search", files / "labels.csv"),
        ("search", scan_file, "--filter", "colour = red"),
        ("search", scan_file, "--filter", "modality = "),
        ("add", scan_file, "--labels", wrong),
        ("add", empty),
        ("inspect", files / "scans" / "broken.dcm"),
        ("render", scan_file, "--out", tmp_path / "x.png", "--frame", "2"),
        ("library", "show", "00000000-0000-0000-0000-000000000000"),
        ("library", "erase", "--yes"),
        ("serve", "--listen", "nowhere"),
    ):
        refused = run(*arguments, server=server)
        assert refused.returncode == 2, (arguments, refused)
        assert len(refused.stderr.strip().splitlines()) == 1, (arguments, refused.stderr)
        assert "Traceback" not in refused.stderr


def test_no_server_is_one_line_and_exit_1(files: Path) -> None:
    for arguments in (("add", files / "scans" / "0.dcm"),):
        refused = run(*arguments)
        assert refused.returncode == 1, refused
        assert "nearcase serve" in refused.stderr
        assert len(refused.stderr.strip().splitlines()) == 1


def test_library_info_list_show_erase(server: str) -> None:
    counted = json.loads(run("library", "info", "--json", server=server).stdout)
    assert counted["case_count"] == 8
    assert counted["field_counts"]["label.mass"] == {"1": 5, "0": 3}
    assert "8 cases of 8 patients" in run("library", "info", server=server).stdout
    listed = json.loads(run("library", "list", "--filter", "label.mass = 0", "--json", server=server).stdout)
    assert len(listed) == 3
    shown = json.loads(run("library", "show", listed[0]["case_id"], server=server).stdout)
    assert shown == listed[0]
    erased = run("library", "erase", "--patient", "PNG11", "--yes", server=server).stdout
    assert erased.startswith("1 cases erased; the files that held them are rewritten\n")


def test_inspect_says_what_the_file_says(files: Path) -> None:
    header = json.loads(run("inspect", files / "scans" / "3.dcm", "--json").stdout)
    assert header["facts"]["patient_id"] == "P3"
    assert header["pixels"]["rows"] == 64
    assert header["rules"]
    table = run("inspect", files / "scans" / "3.dcm").stdout
    assert "P3" in table
    assert "not stated" in table


def test_render_writes_the_frame_as_the_encoder_sees_it(files: Path, tmp_path: Path) -> None:
    out = tmp_path / "frame.png"
    assert run("render", files / "scans" / "3.dcm", "--out", out).returncode == 0
    drawn = np.asarray(PillowImage.open(out))
    assert drawn.dtype == np.uint8
    assert np.array_equal(drawn, read_image((files / "scans" / "3.dcm").read_bytes()).pixels)


def test_embed_writes_ids_and_unit_vectors(files: Path, tmp_path: Path, encoder_folder: Path) -> None:
    out = tmp_path / "vectors.npz"
    done = run("embed", files / "scans", "--out", out)
    assert done.returncode == 2  # the broken file is named, the others are written
    assert "broken.dcm" in done.stderr
    with np.load(out) as stored:
        ids, vectors = stored["ids"].tolist(), stored["vectors"]
    assert ids == sorted(
        str(path) for path in (files / "scans").iterdir() if path.name not in (".hidden", "broken.dcm")
    )
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)
    encoder = open_encoder(encoder_folder)
    pixels = resize(read_image(Path(ids[0]).read_bytes()).pixels, picture_recipe(encoder.card))
    assert vectors[0] @ encoder.embed(normalise(pixels[None], picture_recipe(encoder.card)))[0] > 0.9999
    assert list(tmp_path.iterdir()) == [out]


def test_check_tells_what_works(server: str) -> None:
    good = run("check", "--json", server=server)
    assert good.returncode == 0, good.stderr
    assert all(part["ok"] for part in json.loads(good.stdout).values())
    assert run("check", "--server", "127.0.0.1:1").returncode == 1


def test_help_teaches(tmp_path: Path) -> None:
    first = run("--help")
    assert "nearcase serve --data" in first.stdout
    assert "not medical" in " ".join(first.stdout.split())
    for command in ("serve", "add", "search", "inspect", "render", "embed", "library", "check", "demo"):
        assert run(command, "--help").returncode == 0


def test_names_outside_utf8_are_taken_and_shown(server: str, tmp_path: Path) -> None:
    folder = tmp_path / "names"
    folder.mkdir()
    (folder / os.fsdecode(b"a\xff.png")).write_bytes(picture(77))
    (folder / os.fsdecode(b"b\xff.png")).write_bytes(b"no image")
    added = run("add", folder, server=server)
    assert (added.returncode, added.stdout) == (2, "1 added, 1 refused\n"), added.stderr
    assert "refused" in added.stderr
    page = tmp_path / "page.html"
    query = folder / os.fsdecode(b"a\xff.png")
    assert run("search", query, "--report", page, server=server).returncode == 0
    assert run("search", query, "--filter", os.fsdecode(b"source = \xff"), server=server).returncode == 2
    erased = json.loads(run("library", "list", "--json", server=server).stdout)
    newest = max(erased, key=lambda case: case["added_at_s"])
    assert run("library", "erase", "--case", newest["case_id"], "--yes", server=server).stdout.startswith(
        "1 cases erased"
    )


def test_erasing_what_is_no_case_id_is_refused(server: str) -> None:
    assert run("library", "erase", "--case", "x", "--yes", server=server).returncode == 2


def test_a_fault_of_the_server_is_no_bad_input(files: Path, tmp_path: Path) -> None:
    with serving(tmp_path) as running:
        (tmp_path / "uploads").rmdir()
        (tmp_path / "uploads").write_text("in the way")
        large = tmp_path / "large.png"
        large.write_bytes(picture(1) + bytes(5 << 20))
        assert run("add", large, server=running.address).returncode == 1
