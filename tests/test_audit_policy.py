"""Policies, comparisons of reports, thresholds and explanations on the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from audit_tables import Command, cohort, write

from nearcase_eval.audit.policy import Rule, held_to, verdict_of


@pytest.fixture
def audit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(tmp_path, capsys)


@pytest.fixture
def report(audit: Command, tmp_path: Path) -> Path:
    found = audit.run(write(tmp_path / "t.csv", cohort(1200)), "--op", "threshold=0.5")
    return (found.folder / "report.json").rename(tmp_path / "first.json")


@pytest.mark.parametrize(
    ("rule", "verdict"),
    [
        (Rule("r", "auroc", at_least=0.5), "pass"),
        (Rule("r", "auroc", at_least=0.99), "fail"),
        (Rule("r", "auroc", at_least=0.88), "inconclusive"),
        (Rule("r", "auroc", at_least=0.88, judge="value"), "fail"),
        (Rule("r", "gap", attribute="sex", at_most=0.9), "pass"),
        (Rule("r", "gap", attribute="sex", of="miss_rate", at_most=0.001), "inconclusive"),
        (Rule("r", "gap", attribute="race", at_most=0.9), "inconclusive"),
        (Rule("r", "auroc", finding="no such", at_least=0.5), "inconclusive"),
        (Rule("r", "missing", attribute="age", at_most=0.01), "pass"),
        (Rule("r", "patients", at_least=10_000), "fail"),
        (Rule("r", "overlap", at_most=0), "inconclusive"),
        (Rule("r", "prespecified", at_least=1), "pass"),
        (Rule("r", "slope", at_least=0.0, at_most=5.0), "pass"),
    ],
)
def test_a_rule_is_judged_by_its_interval(report: Path, rule: Rule, verdict: str) -> None:
    results = held_to(json.loads(report.read_text("utf-8")), [rule])
    assert verdict_of(results) == verdict, results


def test_check_exits_with_the_verdict(audit: Command, report: Path, tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    for limit, code in ((0.5, 0), (0.99, 1), (0.88, 3)):
        policy.write_text(f'[[rule]]\nname = "ranks"\nmetric = "auroc"\nat_least = {limit}\n', "utf-8")
        assert audit("check", report, "--policy", policy).code == code


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[rule]\n",
        '[[rule]]\nmetric = "auroc"\nat_least = 1\n',
        '[[rule]]\nname = "a"\nmetric = "beauty"\nat_least = 1\n',
        '[[rule]]\nname = "a"\nmetric = "auroc"\n',
        '[[rule]]\nname = "a"\nmetric = "auroc"\nat_least = "0.8"\n',
        '[[rule]]\nname = "a"\nmetric = "auroc"\nat_least = 0.8\ncolour = 1\n',
        '[[rule]]\nname = "a"\nmetric = "gap"\nof = "auc"\nat_most = 0.8\n',
        "not toml",
    ],
)
def test_a_malformed_policy_is_refused(audit: Command, report: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / "policy.toml").write_text(text, "utf-8")
    assert audit("check", report, "--policy", tmp_path / "policy.toml").code == 2


@pytest.mark.parametrize(
    ("old", "new"), [('"overall": [', '"overall": 3, "x": ['), ('"value": 0.', '"value": NaN, "y": 0.'), ("{", "[")]
)
def test_a_damaged_report_is_bad_input(audit: Command, report: Path, tmp_path: Path, old: str, new: str) -> None:
    damaged = tmp_path / "damaged.json"
    damaged.write_text(report.read_text("utf-8").replace(old, new, 1), "utf-8")
    policy = tmp_path / "policy.toml"
    policy.write_text('[[rule]]\nname = "ranks"\nmetric = "auroc"\nat_least = 0.5\n', "utf-8")
    for found in (audit("check", damaged, "--policy", policy), audit("compare", report, damaged)):
        assert found.code == 2
        assert len(found.err.strip().splitlines()) == 1


def test_a_metric_that_does_not_take_scores_is_bad_input(audit: Command, tmp_path: Path) -> None:
    table = write(tmp_path / "m.csv", cohort(400))
    refused = audit.run(table, "--metric", "sklearn.metrics.accuracy_score")
    assert refused.code == 2
    assert ":called" in refused.err
    assert audit.run(table, "--metric", "os.path.join").code == 2
    assert audit.run(table, "--metric", "sklearn.metrics.accuracy_score:called").code in (0, 1, 3)


def test_compare_tells_what_got_worse(audit: Command, report: Path, tmp_path: Path) -> None:
    columns = cohort(6000)
    rng = np.random.default_rng(0)
    columns["score"] = [
        rng.random() if sex == "F" else score for sex, score in zip(columns["sex"], columns["score"], strict=True)
    ]
    worse = audit.run(write(tmp_path / "w.csv", columns), "--op", "threshold=0.5").folder / "report.json"
    found = audit("compare", report, worse)
    assert found.code == 1
    assert "verdict: inconclusive before, fail after" in found.out
    assert audit("compare", report, report).code == 0
    assert audit("compare", tmp_path / "w.csv", report).code == 2


def thresholds(audit: Command, table: Path, *arguments: str) -> dict[str, Any]:
    out = audit.folder / "points.json"
    assert audit("threshold", table, "--out", out, *arguments).code == 0
    found: dict[str, Any] = json.loads(out.read_text("utf-8"))
    return found


def test_a_threshold_is_chosen_on_one_part_and_measured_on_another(audit: Command, tmp_path: Path) -> None:
    columns = cohort(2000)
    columns["split"] = ["cal" if row < 1000 else "test" for row in range(2000)]
    table = write(tmp_path / "s.csv", columns)
    parts = ("--calibrate", "cal", "--test", "test", "--op", "sens=0.9:pac@0.05")
    point = thresholds(audit, table, *parts)["operating_points"][0]
    truth, score = np.array(columns["label"]), np.array(columns["score"], dtype=float)
    there = (truth == 1) & (np.arange(2000) < 1000)
    assert np.mean(score[there] >= point["threshold"]) >= 0.9
    here = (truth == 1) & (np.arange(2000) >= 1000)
    assert point["held_out"]["sensitivity"]["value"] == np.mean(score[here] >= point["threshold"])
    assert point["method"] == "pac"
    assert point["patients_needed"] == 29
    report = audit.run(table, *parts).report
    assert report["points"][0]["threshold"]["value"] == point["threshold"]
    assert report["points"][0]["prespecified"] is True


def test_a_promise_that_can_not_be_given_is_refused_with_the_number_of_patients(audit: Command, tmp_path: Path) -> None:
    table = write(tmp_path / "few.csv", cohort(60, prevalence=0.2))
    found = audit("threshold", table, "--op", "sens=0.95:pac@0.05", "--out", tmp_path / "p.json")
    assert found.code == 2
    assert "needs at least 59 patients" in found.err
    assert not (tmp_path / "p.json").exists()


def test_a_split_needs_to_be_told_which_part_may_be_used(audit: Command, tmp_path: Path) -> None:
    columns: dict[str, list[object]] = {**cohort(100), "split": ["test"] * 100}
    found = audit("threshold", write(tmp_path / "s.csv", columns), "--op", "sens=0.9")
    assert found.code == 2
    assert "--calibrate" in found.err


def test_schema_and_explain_print(audit: Command) -> None:
    assert json.loads(audit("schema").out)["$schema"].endswith("2020-12/schema")
    assert "ranks the right one higher" in audit("explain", "AUC").out
    assert "auroc" in audit("explain").out
    missing = audit("explain", "aurok")
    assert missing.code == 2
    assert "perhaps auroc" in missing.err
