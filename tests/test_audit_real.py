"""The real table: adjudicated chest X-rays of NIH, with the text-mined labels as scores (4,376 images, ages, sexes).

The rows are read from an installed torchxrayvision, which carries them; they are not copied here.
"""

from __future__ import annotations

import csv
import gzip
import importlib.metadata
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from audit_tables import Command, Outcome, groups_of, write
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from nearcase_eval.audit.schema import schema

FILE = "torchxrayvision/data/google2019_nih-chest-xray-labels.csv.gz"
OPACITY = {"Consolidation", "Infiltration", "Pneumonia", "Atelectasis", "Edema"}
MINED = {
    "pneumothorax": ("Pneumothorax", {"Pneumothorax"}),
    "airspace_opacity": ("Airspace opacity", OPACITY),
    "nodule_or_mass": ("Nodule or mass", {"Nodule", "Mass"}),
}
EDGES = (0, 18, 40, 60, 80, 121)

Row = dict[str, str]


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    try:
        file = importlib.metadata.distribution("torchxrayvision").locate_file(FILE)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("torchxrayvision, which carries the table, is not installed: pip install --no-deps torchxrayvision")
    with gzip.open(Path(str(file)), "rt", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture
def found(rows: list[Row], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Outcome:
    columns: dict[str, list[object]] = {
        "image_id": [row["Image Index"] for row in rows],
        "patient_id": [row["Patient ID"] for row in rows],
        "age": [row["Patient Age"] for row in rows],
        "sex": [row["Patient Gender"] for row in rows],
    }
    for name, (truth, words) in MINED.items():
        columns[f"label_{name}"] = [row[truth] for row in rows]
        columns[f"score_{name}"] = [len(words & set(row["Finding Labels"].split("|"))) for row in rows]
    table = write(tmp_path / "nih.csv", columns)
    return Command(tmp_path, capsys).run(
        table, "--cross", "sex,age", "--op", "threshold=0.5", "--confounders", "age,sex"
    )


def score(row: Row, finding: str) -> int:
    return len(MINED[finding][1] & set(row["Finding Labels"].split("|")))


def in_group(row: Row, attribute: str, group: str) -> bool:
    age = int(row["Patient Age"])
    if attribute == "sex":
        return row["Patient Gender"] == group
    low, _, high = group.rstrip("+").partition("-")
    return int(low) <= age < (int(high) if high else 121)


def test_every_auroc_is_that_of_scikit_learn(rows: list[Row], found: Outcome) -> None:
    checked = 0
    for finding, (truth, _) in MINED.items():
        y, s = np.array([row[truth] == "YES" for row in rows]), np.array([score(row, finding) for row in rows])
        overall = next(each for each in found.report["overall"] if each["finding"] == finding)
        assert overall["auroc"]["value"] == pytest.approx(roc_auc_score(y, s), abs=1e-12)
        assert overall["auprc"]["value"] == pytest.approx(average_precision_score(y, s), abs=1e-12)
        assert overall["partial_auroc"]["value"] == pytest.approx(roc_auc_score(y, s, max_fpr=0.1), abs=1e-12)
        if s.max() <= 1:
            assert overall["calibration"]["brier"]["value"] == pytest.approx(brier_score_loss(y, s), abs=1e-12)
        for attribute in ("sex", "age"):
            for name, group in groups_of(found.report, attribute, finding).items():
                mask = np.array([name != "not stated" and in_group(row, attribute, name) for row in rows])
                if group["auroc"]["value"] is not None:
                    assert group["auroc"]["value"] == pytest.approx(roc_auc_score(y[mask], s[mask]), abs=1e-12)
                    assert group["positives"] == int(y[mask].sum())
                    checked += 1
    assert checked >= 15


def test_the_known_figures(found: Outcome) -> None:
    assert found.report["run"]["rows"] == 4376
    assert found.report["run"]["patients"] == 1695
    sexes = groups_of(found.report, "sex", "pneumothorax")
    assert round(sexes["F"]["auroc"]["value"], 3) == 0.700
    assert round(sexes["M"]["auroc"]["value"], 3) == 0.725
    point = next(each for each in found.report["points"] if each["finding"] == "pneumothorax")
    assert round(point["sensitivity"]["value"], 3) == 0.458
    assert round(point["specificity"]["value"], 3) == 0.969
    assert any(note.startswith("1 ages are impossible") for note in found.report["flow"]["notes"])  # 155 years


def test_it_is_valid_and_names_no_patient(rows: list[Row], found: Outcome) -> None:
    jsonschema.Draft202012Validator(schema()).validate(found.report)
    text = "".join(file.read_text("utf-8") for file in sorted(found.folder.iterdir()))
    assert not [row["Image Index"] for row in rows if row["Image Index"] in text]


def test_groups_add_up_to_the_whole(found: Outcome) -> None:
    for table in found.report["groups"]:
        whole = next(each for each in found.report["overall"] if each["finding"] == table["finding"])
        assert sum(each["n"] for each in table["groups"]) == whole["rows"]
        assert sum(each["positives"] for each in table["groups"]) == whole["positives"]
