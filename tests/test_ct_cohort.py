"""The 100 real CT files of the cohort through `nearcase add`: the library then says of them what their table says."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from serving import serving

ARCHIVE = Path(__file__).parents[1].parent / "shared" / "data" / "ct_contrast_dicom.zip"
pytestmark = pytest.mark.system


def test_facts_of_the_library_equal_the_table(tmp_path: Path) -> None:
    if not ARCHIVE.is_file():
        pytest.skip("the CT cohort ct_contrast_dicom.zip is not beside the project, in ../shared/data")
    with zipfile.ZipFile(ARCHIVE) as archive:
        archive.extractall(tmp_path / "files")
        table = archive.read("ct_contrast_dicom/cohort.csv").decode()
    rows = list(csv.DictReader(io.StringIO(table)))
    labels = tmp_path / "files" / "ct_contrast_dicom" / "cohort.csv"
    command = [sys.executable, "-m", "nearcase"]
    with serving(tmp_path / "data") as server:
        added = subprocess.run(
            [*command, "add", str(labels.parent / "images"), "--labels", str(labels), "--server", server.address],
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert (added.returncode, added.stdout) == (0, "95 added, 5 unchanged\n"), added.stderr  # five are copies
        listing = [*command, "library", "list", "--limit", "200", "--json", "--server", server.address]
        cases = json.loads(subprocess.run(listing, capture_output=True, text=True, timeout=60, check=True).stdout)
    expected = {
        (row["patient_id"], row["sex"], float(row["age"]), row["manufacturer"], row["body_part"], row["label_contrast"])
        for row in rows
    }
    assert len(cases) == 95
    assert {facts_of(case) for case in cases} == expected


def facts_of(case: dict[str, dict[str, str]]) -> tuple[str, str, float, str, str, str]:
    facts = case["facts"]
    years = float(facts["age_years"])
    return (
        facts["patient_id"],
        facts["sex"],
        years,
        facts["manufacturer"],
        facts["body_part"],
        case["labels"]["contrast"],
    )
