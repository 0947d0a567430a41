"""With --suppress no small count of persons is left in any file, and none can be had by subtraction."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest
from audit_tables import Command, cohort, groups_of, write

from nearcase_eval.audit.schema import schema

LEAST = 11


@pytest.fixture
def report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    columns = cohort(900)
    columns["sex"][:8] = ["O"] * 8
    columns["sex"][8:12] = [""] * 4
    columns["site"] = ["tiny" if row < 12 else "small" if row < 60 else "big" for row in range(900)]
    columns["age"][20:26] = [155] * 6
    command = Command(tmp_path, capsys)
    arguments = ("--by", "sex", "--by", "age", "--by", "site", "--cross", "sex,site", "--op", "threshold=0.6")
    found = command.run(write(tmp_path / "t.csv", columns), *arguments, "--suppress", LEAST)
    jsonschema.Draft202012Validator(schema()).validate(found.report)
    return found.report


def test_no_group_shows_a_small_count(report: dict[str, Any]) -> None:
    for table in report["groups"]:
        for group in table["groups"]:
            for name in ("patients", "positive_patients", "negative_patients"):
                assert not 0 < group[name] < LEAST
            for name in ("sensitivity", "specificity", "miss_rate", "false_alarm_rate", "ppv", "npv", "flagged"):
                estimate = group[name]
                if estimate["k"] is not None:
                    assert not 0 < estimate["k"] < LEAST
                    assert not 0 < estimate["n"] - estimate["k"] < LEAST


def test_one_hidden_group_hides_a_second(report: dict[str, Any]) -> None:
    for attribute in ("sex", "site"):
        hidden = [name for name, each in groups_of(report, attribute).items() if each["state"] == "suppressed"]
        assert len(hidden) != 1, attribute
    assert groups_of(report, "sex")["O"]["state"] == "suppressed"


def test_demographics_and_notes_are_vague(report: dict[str, Any]) -> None:
    for row in report["flow"]["demographics"]:
        assert row["patients"] is None or row["patients"] == 0 or row["patients"] >= LEAST
    for attribute in ("sex", "site"):
        rows = [each for each in report["flow"]["demographics"] if each["attribute"] == attribute]
        assert sum(each["patients"] is None for each in rows) != 1
    assert {"what": "sex", "rows": None} in report["flow"]["missing"]
    assert not [note for note in report["flow"]["notes"] if note[0].isdigit() and int(note.split()[0]) < LEAST]


def test_gaps_do_not_speak_of_hidden_groups(report: dict[str, Any]) -> None:
    secret = {name for name, each in groups_of(report, "site").items() if each["state"] == "suppressed"}
    assert secret
    for entry in report["gaps"]:
        if entry["attribute"] == "site":
            largest = entry["gaps"]["largest"]
            for gap in (largest, *entry["gaps"]["to_rest"]):
                if {gap["first"], gap["second"]} & secret:
                    assert gap["estimate"]["value"] is None
            for each in entry["gaps"]["excluded"]:
                assert each["name"] not in secret or each["reason"] == "hidden"
    assert not [limit for limit in report["limits"] if "patients with positives" in limit]
