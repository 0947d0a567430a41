"""The report: schema, same bytes, nothing hostile, nothing from outside, and the choices that change its numbers."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from audit_tables import Command, cohort, groups_of, write
from fairlearn.metrics import MetricFrame
from sklearn.metrics import f1_score, roc_auc_score

from nearcase_eval.audit import schema as schemas
from nearcase_eval.audit.explain import EXPLAINED, explained
from nearcase_eval.audit_cli import FAIL, INCONCLUSIVE, PASS

PACKAGE = Path(schemas.__file__).parent
FORMATS = ("json", "html", "md", "csv")


@pytest.fixture
def audit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(tmp_path, capsys)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return write(tmp_path / "t.csv", cohort(900))


def rich(columns: dict[str, list[object]]) -> dict[str, list[object]]:
    rng, n = np.random.default_rng(3), len(columns["label"])
    parts = np.array(["cal", "test", "train"], dtype=object)[np.arange(n) * 3 // n]
    other = [float(str(each)) * 0.5 + 0.4 * rng.random() for each in columns["score"]]
    site = ["north" if row % 10 < 6 else "south" for row in range(n)]
    return {**columns, "split": parts.tolist(), "other": other, "site": site}


RICH = (
    *("--compare", "other", "--margin", "0.05", "--by", "sex", "--by", "age:50", "--by", "site", "--cross", "sex,site"),
    *("--op", "sens=0.9:pac@0.05", "--op", "spec=0.8:conformal", "--op", "youden", "--op", "cost=5:1"),
    *("--prevalence", "0.02,0.3", "--confounders", "age,sex,site", "--metric", "sklearn.metrics.brier_score_loss"),
    *("--ci", "bootstrap", "--tolerance", "auc=0.3,fnr=0.5,fpr=0.5", "--date", "2026-01-31"),
)


def test_the_published_schema_is_that_of_the_code() -> None:
    assert (PACKAGE / "schema.json").read_text("utf-8") == schemas.to_text()
    jsonschema.Draft202012Validator.check_schema(schemas.schema())


def test_a_rich_report_is_valid_and_has_all_sections(audit: Command, tmp_path: Path) -> None:
    found = audit.run(write(tmp_path / "rich.csv", rich(cohort(2400))), *RICH)
    jsonschema.Draft202012Validator(schemas.schema()).validate(found.report)
    assert [each["threshold"]["method"] for each in found.report["points"]] == ["pac", "conformal", "youden", "cost"]
    assert {each["chosen_on"] for each in found.report["points"]} == {"calibration part"}
    assert found.report["versus"][0]["noninferior"] is True
    assert {each["what"]: each["rows"] for each in found.report["flow"]["steps"]}[
        "in the part 'train': not used"
    ] == 800
    assert "bootstrap" in found.report["overall"][0]["auroc"]["method"]
    assert found.report["run"]["date"] == "2026-01-31"
    markdown = (found.folder / "report.md").read_text("utf-8")
    page = (found.folder / "report.html").read_text("utf-8")
    for number in range(1, 12):
        assert f"\n## {number}. " in markdown
        assert f'id="section-{number}"' in page


@pytest.mark.parametrize(
    ("tolerance", "code"), [("auc=0.9,fnr=0.9,fpr=0.9", PASS), ("auc=0.02,fnr=0.02,fpr=0.02", INCONCLUSIVE)]
)
def test_exit_codes_tell_fair_from_too_few_data(audit: Command, table: Path, tolerance: str, code: int) -> None:
    assert audit.run(table, "--by", "sex", "--op", "threshold=0.5", "--tolerance", tolerance).code == code


def test_a_large_gap_fails(audit: Command, tmp_path: Path) -> None:
    columns = cohort(4000)
    rng = np.random.default_rng(0)
    columns["score"] = [
        rng.random() if sex == "F" else score for sex, score in zip(columns["sex"], columns["score"], strict=True)
    ]
    found = audit.run(write(tmp_path / "gap.csv", columns), "--by", "sex", "--op", "threshold=0.5")
    assert found.code == FAIL
    gap = next(each for each in found.report["gaps"] if each["metric"] == "auroc")
    assert gap["gaps"]["worst"] == "F"
    assert gap["gaps"]["largest"]["verdict"] == "fail"
    assert gap["p_adjusted"] < 0.05


def test_the_same_input_and_seed_give_the_same_bytes(audit: Command, table: Path) -> None:
    arguments = ("--confounders", "age,sex", "--cross", "sex,age", "--op", "sens=0.9")
    first = {name: (audit.run(table, *arguments).folder / f"report.{name}").read_bytes() for name in FORMATS}
    second = {name: (audit.run(table, *arguments).folder / f"report.{name}").read_bytes() for name in FORMATS}
    assert first == second


def test_the_date_comes_from_the_input_never_from_the_clock(
    audit: Command, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    assert audit.run(table).report["run"]["date"] is None
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    assert audit.run(table).report["run"]["date"] == "1970-01-02"


def test_the_order_of_the_rows_does_not_matter(audit: Command, tmp_path: Path) -> None:
    columns = cohort(700)
    order = np.random.default_rng(5).permutation(700)
    mixed = {name: [cells[place] for place in order] for name, cells in columns.items()}
    options = ("--op", "sens=0.9", "--boot", "0")
    first = audit.run(write(tmp_path / "a.csv", columns), *options).report
    second = audit.run(write(tmp_path / "b.csv", mixed), *options).report

    def numbers(value: Any) -> Iterator[float]:
        if isinstance(value, dict):
            for each in value.values():
                yield from numbers(each)
        elif isinstance(value, list):
            for each in value:
                yield from numbers(each)
        elif isinstance(value, float):
            yield value

    for section in ("overall", "points", "groups", "gaps"):
        np.testing.assert_allclose([*numbers(first[section])], [*numbers(second[section])], rtol=1e-9, atol=1e-12)


HOSTILE = '<script>alert("x")</script>&\'|=cmd'


def test_hostile_names_are_escaped_everywhere(audit: Command, tmp_path: Path) -> None:
    columns = cohort(600)
    columns[f"label_{HOSTILE}"], columns[f"score_{HOSTILE}"] = columns.pop("label"), columns.pop("score")
    columns["site"] = [HOSTILE if row % 2 else "=1+1" for row in range(600)]
    card = tmp_path / "card.toml"
    card.write_text(
        f"[model]\nname = '''{HOSTILE}'''\n[use]\nintended_use = '''{HOSTILE}'''\n".replace("'''", '"""'), "utf-8"
    )
    card.write_text(card.read_text("utf-8").replace('"x"', "'x'"), "utf-8")
    arguments = ("--by", "site", "--card", card, "--title", HOSTILE, "--date", HOSTILE, "--op", "threshold=0.5")
    found = audit.run(write(tmp_path / "h.csv", columns), *arguments)
    page = (found.folder / "report.html").read_text("utf-8")
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "<script" not in (found.folder / "report.md").read_text("utf-8").replace("\\<script", "")
    with (found.folder / "report.csv").open(encoding="utf-8", newline="") as stream:
        assert not [cell for row in csv.reader(stream) for cell in row if re.match(r"[=+@]|-[^0-9]", cell)]


def test_the_page_needs_nothing_from_outside(audit: Command, table: Path) -> None:
    page = (audit.run(table).folder / "report.html").read_text("utf-8")
    assert not re.search(r"https?://|\ssrc=|@import|url\(|<script|\sstyle=|\son\w+=", page)
    assert "default-src 'none'" in page
    assert len(re.findall(r"<h1[ >]", page)) == 1
    assert page.count('role="img"') == page.count('class="plot"')
    assert not re.search(r'aria-label=""', page)


def test_tidy_csv_holds_the_numbers_of_the_json(audit: Command, table: Path) -> None:
    found = audit.run(table, "--op", "threshold=0.5")
    with (found.folder / "report.csv").open(encoding="utf-8", newline="") as stream:
        lines = list(csv.DictReader(stream))
    women = next(each for each in lines if each["group"] == "F" and each["metric"] == "auroc")
    expected = groups_of(found.report, "sex")["F"]["auroc"]
    assert [float(women[name]) for name in ("value", "low", "high")] == [
        expected[name] for name in ("value", "low", "high")
    ]


def test_a_named_metric_is_that_of_metric_frame(audit: Command, tmp_path: Path) -> None:
    columns = cohort(800)
    names = ("sklearn.metrics.roc_auc_score", "sklearn.metrics.f1_score:called")
    arguments = [part for name in names for part in ("--metric", name)]
    found = audit.run(write(tmp_path / "t.csv", columns), "--by", "sex", "--op", "threshold=0.5", *arguments)
    truth, score = np.array(columns["label"]), np.array(columns["score"], dtype=float)
    for name, metric, values in ((names[0], roc_auc_score, score), (names[1], f1_score, score >= 0.5)):
        expected = MetricFrame(metrics=metric, y_true=truth, y_pred=values, sensitive_features=columns["sex"]).by_group
        rows = {each["group"]: each["estimate"] for each in found.report["metrics"] if each["metric"] == name}
        for group in ("F", "M"):
            assert rows[group]["value"] == pytest.approx(float(expected[group]), abs=1e-12)
            assert rows[group]["low"] < rows[group]["value"] < rows[group]["high"]


def test_patients_in_two_parts_are_found(audit: Command, tmp_path: Path) -> None:
    columns = rich(cohort(900))
    columns["split"] = ["test" if row % 2 else "cal" for row in range(900)]
    found = audit.run(write(tmp_path / "t.csv", columns))
    assert found.report["system"]["overlaps"] == [{"part": "cal", "patients": 450}]
    assert found.report["system"]["overlap_check"].startswith("Failed")
    assert any("not independent" in each for each in found.report["limits"])


def test_the_card_fills_sections_2_and_3_and_blanks_stay_blank(audit: Command, table: Path, tmp_path: Path) -> None:
    card = tmp_path / "card.toml"
    card.write_text(
        '[model]\nname = "M"\nk = 10\nscore_is_vote_share = true\n[use]\nintended_use = "triage"\n'
        "[population.sex]\nF = 0.5\nM = 0.5\n",
        "utf-8",
    )
    report = audit.run(table, "--card", card).report
    assert (report["system"]["name"], report["system"]["version"]) == ("M", None)
    assert {each["field"]: each["text"] for each in report["use"]}["users"] is None
    assert {each["group"]: each["target_share"] for each in report["flow"]["demographics"]}["F"] == 0.5
    card.write_text("[model]\nkolour = 1\n", "utf-8")
    assert audit.run(table, "--card", card).code == 2
    card.write_text("[model]\nk = 'ten'\n", "utf-8")
    assert "expected k as int" in audit.run(table, "--card", card).err


def estimates(kind: dict[str, Any], name: str) -> Iterator[str]:
    for field, shape in kind["properties"].items():
        if "#/$defs/Estimate" in json.dumps(shape):
            yield field if field != "estimate" else name.lower()


def test_every_metric_of_the_report_is_explained() -> None:
    found = {field for name, kind in schemas.schema()["$defs"].items() for field in estimates(kind, name)}
    named_elsewhere = {"areas", "first", "second", "metricrow", "model", "observed", "positive", "negative"}
    for field in [*sorted(found - named_elsewhere), "fnr", "eod", "p", "state"]:
        assert explained(field)
    assert all(entry.meaning and entry.computed and entry.source for entry in EXPLAINED.values())
