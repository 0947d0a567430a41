"""Tables that the tests of nearcase-audit read, and the command itself, run in this process."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nearcase_eval.audit_cli import main

Columns = Mapping[str, Sequence[object]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run of the command gave."""

    code: int
    out: str
    err: str
    folder: Path
    report: dict[str, Any]  # empty when none was written


class Command:
    """Runs nearcase-audit and catches what it prints."""

    def __init__(self, folder: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.folder, self._capture = folder, capture

    def __call__(self, *arguments: object) -> Outcome:
        self._capture.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(each) for each in arguments])
        printed = self._capture.readouterr()
        file = self.folder / "out" / "report.json"
        report = json.loads(file.read_text("utf-8")) if file.exists() else {}
        return Outcome(int(ended.value.code or 0), printed.out, printed.err, self.folder / "out", report)

    def run(self, table: Path, *arguments: object) -> Outcome:
        out = ("--out", self.folder / "out", "--format", "json,html,md,csv")
        return self("run", table, *out, "--boot", "200", *arguments)


def cohort(n: int = 600, *, seed: int = 1, per_patient: int = 2, prevalence: float = 0.3) -> dict[str, list[object]]:
    """A plausible table: n images, a score that separates fairly, both sexes, ages of 20 to 89."""
    rng = np.random.default_rng(seed)
    patient = np.arange(n) // per_patient
    ages, sexes = rng.integers(20, 90, size=n // per_patient + 1), rng.integers(2, size=n // per_patient + 1)
    truth = rng.random(n) < prevalence
    score = 1.0 / (1.0 + np.exp(-(rng.normal(size=n) + 1.5 * truth - 1.0)))
    return {
        "image_id": [f"img{row}" for row in range(n)],
        "patient_id": [f"P{code:05}" for code in patient],
        "sex": ["FM"[sexes[code]] for code in patient],
        "age": [int(ages[code]) for code in patient],
        "label": truth.astype(int).tolist(),
        "score": score.tolist(),
    }


def write(path: Path, columns: Columns, *, encoding: str = "utf-8", delimiter: str = ",") -> Path:
    with path.open("w", encoding=encoding, newline="") as stream:
        writer = csv.writer(stream, delimiter=delimiter)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return path


def groups_of(report: Mapping[str, Any], attribute: str, finding: str | None = None) -> dict[str, Any]:
    """The groups of one attribute at the first operating point, by name."""
    table = next(
        each for each in report["groups"] if each["attribute"] == attribute and finding in (None, each["finding"])
    )
    return {each["name"]: each for each in table["groups"]}
