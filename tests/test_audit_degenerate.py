"""Degenerate tables: each gets a clear answer, never a number that is none, and never a traceback."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from audit_tables import Command, Outcome, cohort, groups_of, write

from nearcase_eval.audit.schema import schema

VALIDATOR = jsonschema.Draft202012Validator(schema())


@pytest.fixture
def audit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(tmp_path, capsys)


def audited(audit: Command, columns: dict[str, list[object]], *arguments: object) -> Outcome:
    found = audit.run(write(audit.folder / "t.csv", columns), *arguments)
    assert found.code in (0, 1, 3), found.err
    VALIDATOR.validate(found.report)
    return found


def limits(found: Outcome) -> str:
    return "\n".join(found.report["limits"])


def test_a_group_without_positives_has_no_auroc_and_no_fnr_but_an_fpr(audit: Command) -> None:
    columns = cohort(600)
    columns["label"] = [0 if sex == "F" else label for sex, label in zip(columns["sex"], columns["label"], strict=True)]
    found = audited(audit, columns, "--op", "threshold=0.5")
    women = groups_of(found.report, "sex")["F"]
    assert women["positives"] == 0
    assert women["auroc"]["value"] is None
    assert women["miss_rate"]["state"] == "not estimable"
    assert women["false_alarm_rate"]["value"] is not None
    gap = next(each for each in found.report["gaps"] if each["attribute"] == "sex" and each["metric"] == "auroc")
    assert gap["gaps"]["largest"]["estimate"]["value"] is None
    assert gap["gaps"]["largest"]["verdict"] == "inconclusive"
    assert found.code == 1  # the relabelled women are false alarms now: a gap in FPR


@pytest.mark.parametrize("only", [0, 1])
def test_one_class_only(audit: Command, only: int) -> None:
    columns = cohort(200)
    columns["label"] = [only] * 200
    found = audited(audit, columns)
    assert found.code == 3
    assert found.report["overall"][0]["auroc"]["value"] is None
    assert found.report["overall"][0]["curve"] == []
    assert "one class only" in limits(found)


def test_all_scores_equal(audit: Command) -> None:
    found = audited(audit, {**cohort(300), "score": [0.5] * 300}, "--op", "sens=0.9")
    assert found.report["overall"][0]["auroc"]["value"] == 0.5
    assert "all scores are equal" in limits(found)


def test_nan_and_infinite_scores_are_left_out_and_counted(audit: Command) -> None:
    columns = cohort(400)
    columns["score"][:7] = ["NaN", "", "nan", "N/A", "inf", "-inf", "null"]
    found = audited(audit, columns)
    flow = found.report["flow"]["findings"][0]
    assert (flow["unscored"], flow["rows"]) == (7, 393)
    assert "7 rows without a finite score" in limits(found)


def test_scores_outside_0_to_1_are_allowed_and_said(audit: Command) -> None:
    columns = cohort(400)
    columns["score"] = [10.0 * float(str(each)) - 3.0 for each in columns["score"]]
    found = audited(audit, columns, "--op", "spec=0.9")
    plain = audited(audit, cohort(400), "--op", "spec=0.9")
    overall = found.report["overall"][0]
    assert overall["auroc"] == plain.report["overall"][0]["auroc"]
    assert overall["calibration"] is None
    assert overall["benefit"] == []
    assert "no probabilities" in overall["calibration_reason"]
    assert "calibration and net benefit need probabilities" in limits(found)


def test_missing_age_and_sex_are_a_group_of_their_own_and_in_no_gap(audit: Command) -> None:
    columns = cohort(600)
    columns["sex"][:120] = [""] * 120
    columns["age"][100:300] = ["unknown?"] * 200
    found = audited(audit, columns)
    assert {"what": "sex", "rows": 120} in found.report["flow"]["missing"]
    assert groups_of(found.report, "sex")["not stated"]["n"] == 120
    named = {gap["first"] for each in found.report["gaps"] for gap in each["gaps"]["to_rest"]}
    assert "not stated" not in named
    assert any("200 ages can not be read" in note for note in found.report["flow"]["notes"])
    assert "do not state age" in limits(found)
    without = audited(audit, columns, "--missing", "exclude")
    assert "not stated" not in groups_of(without.report, "sex")


def test_no_attribute_at_all_is_inconclusive_and_not_a_pass(audit: Command) -> None:
    columns = cohort(200)
    del columns["sex"], columns["age"]
    found = audited(audit, columns)
    assert found.code == 3
    assert "no attribute to compare" in found.report["summary"]["sentence"]


def test_one_patient_with_most_images(audit: Command) -> None:
    columns = cohort(400)
    columns["patient_id"][:300] = ["P00000"] * 300
    found = audited(audit, columns)
    assert found.report["flow"]["largest_patient_share"] == 0.75
    assert found.report["flow"]["images_per_patient_max"] == 300
    assert "One patient has 75.0 % of the test images" in limits(found)
    overall = found.report["overall"][0]

    def width(estimate: dict[str, Any]) -> float:
        return float(estimate["high"] - estimate["low"])

    assert width(overall["auroc"]) > 1.2 * width(overall["auroc_rows"])


def test_rows_that_repeat_another_are_dropped_when_images_have_names(audit: Command) -> None:
    columns = cohort(300)
    twice = {name: [*cells, *cells[:20]] for name, cells in columns.items()}
    found, once = audited(audit, twice), audited(audit, columns)
    assert found.report["flow"]["steps"][1] == {"what": "dropped: repeat another row in every column", "rows": 20}
    assert found.report["overall"] == once.report["overall"]


def test_an_image_with_two_different_rows_is_refused(audit: Command) -> None:
    columns = cohort(300)
    columns["image_id"][5] = columns["image_id"][4]
    found = audit.run(write(audit.folder / "t.csv", columns))
    assert found.code == 2
    assert "give each image one row" in found.err


def test_a_table_without_rows_is_refused(audit: Command) -> None:
    found = audit.run(write(audit.folder / "t.csv", {name: [] for name in cohort(2)}))
    assert found.code == 2
    assert "expected rows below the header" in found.err


def test_exchanged_columns_are_refused_with_a_hint(audit: Command) -> None:
    columns = cohort(300)
    columns["label"], columns["score"] = columns["score"], columns["label"]
    found = audit.run(write(audit.folder / "t.csv", columns))
    assert found.code == 2
    assert "exchange --label and --score" in found.err
    assert "0." not in found.err.replace("0.5", "")  # no cell of the table is repeated


def test_words_in_the_score_column_are_refused_with_a_hint(audit: Command) -> None:
    columns: dict[str, list[object]] = {**cohort(300), "score": ["yes"] * 300}
    found = audit.run(write(audit.folder / "t.csv", columns))
    assert found.code == 2
    assert "exchange --label and --score" in found.err


def test_an_age_of_155_is_missing_and_said(audit: Command) -> None:
    columns = cohort(300)
    columns["age"][10] = 155
    columns["age"][11:14] = ["045Y", "006M", "90+"]
    found = audited(audit, columns)
    assert any(note.startswith("1 ages are impossible") for note in found.report["flow"]["notes"])
    ages = groups_of(found.report, "age")
    assert ages["0-18"]["n"] == 1
    assert sum(each["n"] for each in ages.values()) == 300


def test_mixed_encodings_name_the_line(audit: Command) -> None:
    path = write(audit.folder / "t.csv", {**cohort(10), "site": ["Zürich"] * 10})
    content = path.read_bytes().split(b"\n")
    content[6] = content[6].replace("ü".encode(), b"\xfc")
    path.write_bytes(b"\n".join(content))
    found = audit.run(path)
    assert found.code == 2
    assert "t.csv line 7" in found.err
    assert "--encoding" in found.err


def test_uncertain_labels_are_left_out_and_counted(audit: Command) -> None:
    columns = cohort(300)
    columns["label"][:30] = [-1] * 10 + ["u"] * 10 + [""] * 10
    found = audited(audit, columns)
    flow = found.report["flow"]["findings"][0]
    assert (flow["unlabelled"], flow["uncertain"], flow["rows"]) == (30, 20, 270)


def test_fourteen_labels_one_of_them_with_one_class(audit: Command) -> None:
    base = cohort(400)
    columns = {name: base[name] for name in ("image_id", "patient_id", "sex", "age")}
    for each in range(14):
        one = cohort(400, seed=each + 10)
        columns[f"label_{each}"], columns[f"score_{each}"] = one["label"], one["score"]
    columns["label_13"] = [0] * 400
    found = audited(audit, columns, "--boot", "50")
    assert [each["finding"] for each in found.report["overall"]] == [str(each) for each in range(14)]
    averages = found.report["averages"]
    assert averages["dropped"] == ["13"]
    values = [each["auroc"]["value"] for each in found.report["overall"][:13]]
    assert averages["macro"]["value"] == pytest.approx(float(np.mean(values)), abs=1e-12)
    assert {each["family"] for each in found.report["gaps"]} == {
        sum(each["p"] is not None for each in found.report["gaps"])
    }


def test_a_single_row(audit: Command) -> None:
    columns = {name: cells[:1] for name, cells in cohort(10).items()}
    found = audited(audit, columns, "--op", "sens=0.9:pac@0.05", "--op", "cost=10:1")
    assert found.code == 3
    assert all(point["threshold"]["value"] is None for point in found.report["points"])


def test_a_row_without_a_patient_is_refused(audit: Command) -> None:
    columns = cohort(100)
    columns["patient_id"][3] = ""
    found = audit.run(write(audit.folder / "t.csv", columns))
    assert found.code == 2
    assert "1 of 100 rows have no patient" in found.err
    assert audit.run(audit.folder / "t.csv", "--patient", "none").code in (0, 1, 3)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--op", "sense=0.9"), "sens=0.95"),
        (("--op", "sens=1.5"), "inside 0..1"),
        (("--by", "image_id"), "no report may show"),
        (("--by", "score_id"), "at most 40 groups"),
        (("--split", "score_id"), "has 100 values"),
        (("--by", "site"), "no column for 'site'"),
        (("--by", "age:60,40"), "ascending"),
        (("--tolerance", "auc=-1"), "above 0"),
        (("--cross", "sex"), "two attributes"),
        (("--confounders", "weight"), "no column for weight"),
        (("--metric", "no.such.function"), "no function"),
        (("--test", "test"), "split column"),
        (("--format", "pdf"), "formats"),
    ],
)
def test_a_bad_option_is_one_line_and_exit_2(audit: Command, arguments: tuple[str, ...], said: str) -> None:
    columns: dict[str, list[object]] = {**cohort(100), "score_id": [*range(100)]}
    found = audit.run(write(audit.folder / "t.csv", columns), *arguments)
    assert found.code == 2
    assert said in found.err.splitlines()[-1]
