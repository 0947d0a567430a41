"""`nearcase-eval run`: from images to a report through the server's own code, and cohorts that would cheat refused."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from serving import picture, scan

from nearcase.errors import InvalidInput
from nearcase_eval.cohort import read_cohort
from nearcase_eval.files import open_files
from nearcase_eval.probe import out_of_fold

TOML = """
name = "made"
images = "images"
table = "cohort.csv"

[[finding]]
name = "mass"
column = "label_mass"
"""


def cohort(folder: Path, *, toml: str = TOML, patients: int = 24) -> Path:
    """Two images of each patient; every third patient has a mass, which makes the picture brighter."""
    (folder / "images").mkdir()
    with (folder / "cohort.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["image", "patient_id", "sex", "age", "split", "label_mass"])
        for patient in range(patients):
            for number in (0, 1):
                name = f"{patient}-{number}.dcm"
                (folder / "images" / name).write_bytes(scan(2 * patient + number, f"P{patient}"))
                part = "library" if patient % 2 else "test"
                writer.writerow([name, f"P{patient}", "FM"[patient % 2], 30 + patient, part, int(patient % 3 == 0)])
    (folder / "cohort.toml").write_text(toml)
    return folder / "cohort.toml"


@pytest.mark.system
def test_from_images_to_report_and_a_second_run_goes_on_from_the_cache(tmp_path: Path) -> None:
    described = cohort(tmp_path)
    (tmp_path / "images" / "0-0.dcm").write_bytes(b"no image")
    command = [
        sys.executable,
        "-W",
        "error",
        "-m",
        "nearcase_eval",
        "run",
        str(described),
        "--out",
        str(tmp_path / "out"),
        "-k",
        "5",
    ]
    first = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert first.returncode in (0, 1, 3), first.stderr
    assert "not read: 0-0.dcm" in first.stdout
    assert "not medical" in " ".join(first.stdout.split())
    rows = list(csv.DictReader((tmp_path / "out" / "scores.csv").read_text().splitlines()))
    assert len(rows) == 48
    scored = [row for row in rows if row["A_mass"]]
    assert len(scored) == 47
    assert all(0 <= float(row["A_mass"]) <= 1 and 0 <= float(row["B_mass"]) <= 1 for row in scored)
    report = json.loads((tmp_path / "out" / "audit" / "report.json").read_text())
    assert report["overall"][0]["patients"] == 24
    metrics = json.loads((tmp_path / "out" / "retrieval.json").read_text())["mass"]
    assert 0 <= metrics["precision@1"]["value"] <= 1
    before = (tmp_path / "out" / "scores.csv").read_bytes()
    again = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert again.returncode == first.returncode
    assert (tmp_path / "out" / "scores.csv").read_bytes() == before


def test_patients_in_both_sets_are_refused(tmp_path: Path) -> None:
    split = 'protocol = "library-test"\n' + TOML + '\n[split]\nlibrary = ["library"]\ntest = ["test"]\n'
    good = read_cohort(cohort(tmp_path, toml=split))
    assert {image.patient for image in good.images if image.is_query}.isdisjoint(
        image.patient for image in good.images if image.is_library
    )
    text = (tmp_path / "cohort.csv").read_text().replace("1-0.dcm,P1,", "1-0.dcm,P2,")
    (tmp_path / "cohort.csv").write_text(text)
    with pytest.raises(InvalidInput, match="both the library and the test set"):
        read_cohort(tmp_path / "cohort.toml")


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ('name = "made"', "", "name"),
        ('images = "images"', 'images = "elsewhere"', "elsewhere"),
        ('name = "made"', 'name = "made"\ncolour = 1', "colour"),
        ("label_mass", "label_lump", "label_lump"),
        ('name = "made"', 'name = "made"\nprotocol = "guess"', "protocol"),
    ],
)
def test_a_wrong_description_is_one_line(tmp_path: Path, old: str, new: str, fault: str) -> None:
    described = cohort(tmp_path, toml=TOML.replace(old, new))
    with pytest.raises(InvalidInput, match=fault) as refused:
        read_cohort(described)
    assert len(str(refused.value).splitlines()) == 1


def test_a_zip_is_read_in_place_and_nothing_outside_a_folder(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        archive.writestr("a/b/1.png", picture(1))
    assert open_files(tmp_path / "set.zip" / "a").read("b/1.png") == picture(1)
    (tmp_path / "inside").mkdir()
    (tmp_path / "secret").write_text("x")
    for files, name in ((open_files(tmp_path / "inside"), "../secret"), (open_files(tmp_path / "set.zip"), "nothing")):
        with pytest.raises(InvalidInput):
            files.read(name)


def test_a_probe_never_saw_the_patient_it_scores() -> None:
    """Vectors that name their patient and nothing else: a probe that had seen the patient would know the outcome."""
    rng = np.random.default_rng(0)
    patient = np.repeat(np.arange(60), 4)
    truth = rng.permutation(np.repeat([True, False], 30))[patient]
    vectors = rng.normal(size=(60, 32))[patient].astype(np.float32)
    scores = out_of_fold(vectors, truth, patient, seed=0)
    order = np.argsort(scores)
    ranks = np.empty(len(scores))
    ranks[order] = np.arange(len(scores))
    area = (ranks[truth].mean() - ranks[~truth].mean()) / len(scores) + 0.5
    assert 0.25 < area < 0.75
