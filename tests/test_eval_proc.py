"""DeLong intervals, paired tests and partial AUROC are pROC's, to the last digits that matter."""

from __future__ import annotations

import csv
import io
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from strategies_eval import minimal_standard

from nearcase_eval import delong
from nearcase_eval.auroc import auroc
from nearcase_eval.clustered import area_of, covariance
from nearcase_eval.comparison import compare
from nearcase_eval.estimate import Shape
from nearcase_eval.operating import operating_point
from nearcase_eval.ranking import partial_area
from nearcase_eval.sample import Bools, Floats, sample_of
from nearcase_eval.thresholds import youden

EXPECTED: dict[str, Any] = json.loads((Path(__file__).parent / "data" / "eval" / "proc.json").read_text())
SETS = ["fine", "tied", "small", "aSAH"]
GENERATED = {"fine": (11, 240, 100_000), "tied": (12, 240, 6), "small": (13, 30, 50)}


def synthetic(seed: int, n: int, levels: int) -> tuple[Bools, Floats]:
    truth = minimal_standard(seed, n) % 100 < 35
    noise, other, third = (minimal_standard(seed + step, n) % levels for step in (1, 2, 3))
    shift = levels // 5
    return truth, np.array([noise + 2 * shift * truth, other + shift * truth, third], dtype=np.float64)


def asah() -> tuple[Bools, Floats]:
    """pROC's own rows, read from R: they are GPL and not kept here."""
    if shutil.which("Rscript") is None:
        pytest.skip("R with pROC is not installed: apt-get install r-cran-proc")
    script = "suppressMessages(library(pROC)); data(aSAH); write.csv(aSAH, row.names = FALSE)"
    result = subprocess.run(["Rscript", "-e", script], check=False, capture_output=True, text=True)
    if result.returncode:
        pytest.skip("R has no pROC: apt-get install r-cran-proc")
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    truth = np.array([row["outcome"] == "Poor" for row in rows])
    return truth, np.array([[float(row[name]) for row in rows] for name in ("wfns", "s100b", "ndka")])


@pytest.fixture(scope="module", params=SETS)
def case(request: pytest.FixtureRequest) -> tuple[Bools, Floats, Any]:
    name = str(request.param)
    truth, scores = asah() if name == "aSAH" else synthetic(*GENERATED[name])
    return truth, scores, EXPECTED[name]


def test_delong_intervals(case: tuple[Bools, Floats, Any]) -> None:
    truth, scores, expected = case
    for score, (low, value, high) in zip(scores, expected["ci"], strict=True):
        found = auroc(truth, score, shape=Shape.NORMAL)
        assert [found.low, found.value, found.high] == pytest.approx([low, value, min(high, 1.0)], abs=1e-12)


def test_paired_tests_and_covariance(case: tuple[Bools, Floats, Any]) -> None:
    truth, scores, expected = case
    found = compare(truth, dict(zip("abc", scores, strict=True)))
    textbook = delong.covariance(truth, scores)[1]
    ours = covariance([area for score in scores if (area := area_of(sample_of(truth, score)))])
    assert ours == pytest.approx(textbook, abs=1e-15)
    for pair, (z, p, cov), (i, j) in zip(found.differences, expected["paired"], [(0, 1), (0, 2), (1, 2)], strict=True):
        assert (pair.z, pair.p) == pytest.approx((z, p), abs=1e-10)
        assert ours[i, j] == pytest.approx(cov, abs=1e-14)


def test_partial_areas(case: tuple[Bools, Floats, Any]) -> None:
    truth, scores, expected = case
    found = [partial_area(truth, score, max_fpr=0.1) for score in scores]
    assert found == pytest.approx(expected["partial"], abs=1e-12)


def test_youden_on_tied_scores() -> None:
    truth, scores = synthetic(*GENERATED["tied"])
    threshold = youden(truth, scores[0]).value
    assert threshold is not None
    point = operating_point(truth, scores[0], threshold)
    assert [point.sensitivity.value, point.specificity.value] == pytest.approx(EXPECTED["youden_tied"], abs=1e-12)
