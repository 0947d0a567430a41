"""The model card of a real run: measured numbers only, and what was not measured is said."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from sklearn.metrics import roc_auc_score
from striped_cohort import striped_cohort
from tiny_encoders import tiny_encoder

from nearcase.encode.card import read_card
from nearcase.encode.runtime import open_encoder
from nearcase.errors import InvalidInput
from nearcase_eval.card_cli import card as command
from nearcase_eval.card_text import to_json, to_markdown
from nearcase_eval.cohort import read_cohort
from nearcase_eval.eval_cli import audit, retrieval_of
from nearcase_eval.model_card import ModelCard, Section, model_card
from nearcase_eval.run import run_cohort, write_scores


def told(stage: str, done: int, total: int) -> None:
    assert 0 <= done <= total


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run as `nearcase-eval run` writes it, with its audit."""
    root = tmp_path_factory.mktemp("card")
    cohort = read_cohort(striped_cohort(root / "cohort"))
    encoder, run = open_encoder(tiny_encoder(root / "encoder", "tiny", seed=1)), root / "run"
    run.mkdir()
    result = run_cohort(cohort, encoder, run / "cache", k=5, seed=0, workers=1, progress=told)
    write_scores(result, run / "scores.csv")
    (run / "retrieval.json").write_text(json.dumps(retrieval_of(result)))
    audit(run, result, 0, "auc=0.05", ("sex", "age"))
    return root


@pytest.fixture
def bare(root: Path, tmp_path: Path) -> Path:
    """The same run with its scores only."""
    shutil.copytree(root / "run", tmp_path / "run", ignore=shutil.ignore_patterns("audit", "retrieval.json"))
    return tmp_path / "run"


def card_of(run: Path, root: Path) -> ModelCard:
    return model_card(run, read_card(root / "encoder"))


def section(card: ModelCard, title: str) -> Section:
    [found] = [each for each in card.sections if each.title.startswith(title)]
    return found


def numbers_in(value: Any) -> Iterator[float]:
    if isinstance(value, dict):
        for each in value.values():
            yield from numbers_in(each)
    elif isinstance(value, list):
        for each in value:
            yield from numbers_in(each)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield float(value)


def test_the_areas_are_those_of_the_scores(root: Path) -> None:
    with (root / "run" / "scores.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    truth = [row["y_lying"] == "1" for row in rows]
    neighbours, probe = section(card_of(root / "run", root), "Metrics: discrimination").measurements
    assert neighbours.value == pytest.approx(roc_auc_score(truth, [float(row["A_lying"]) for row in rows]), abs=1e-12)
    assert probe.value == pytest.approx(roc_auc_score(truth, [float(row["B_lying"]) for row in rows]), abs=1e-12)
    assert (neighbours.n, neighbours.patients) == (60, 60)


def test_every_other_number_is_in_a_file_of_the_run(root: Path) -> None:
    known = set(numbers_in(json.loads((root / "run" / "audit" / "report.json").read_text())))
    known |= set(numbers_in(json.loads((root / "run" / "retrieval.json").read_text())))
    found = card_of(root / "run", root)
    checked = 0
    for each in (number for part in found.sections for number in part.measurements):
        if each.file != "scores.csv":
            for value in (each.value, each.low, each.high):
                assert value is None or value in known
            checked += 1
    assert checked > 20


def test_the_gaps_carry_their_verdict_and_the_groups_their_counts(root: Path) -> None:
    found = card_of(root / "run", root)
    verdicts = {each.remark.split()[0] for each in section(found, "Fairness").measurements}
    assert verdicts <= {"pass", "fail", "inconclusive", "not"}
    assert any("tolerance of 0.05" in each.remark for each in section(found, "Fairness").measurements)
    by_group = {each.group: each for each in section(found, "Quantitative analyses: unitary").measurements}
    assert {"sex: F", "sex: M"} <= set(by_group)
    assert by_group["sex: F"].n == 30


def test_what_was_not_measured_is_said(root: Path, bare: Path) -> None:
    whole, scores_only = card_of(root / "run", root), card_of(bare, root)
    assert section(whole, "Quantitative analyses: intersectional").not_measured  # --cross was not asked for
    assert section(whole, "Safety").not_measured
    silent = [each.title for each in scores_only.sections if each.not_measured]
    assert {"Metrics: retrieval", "Fairness and equity", "Factors", "Confounders"} <= set(silent)
    assert section(scores_only, "Metrics: discrimination").measurements
    text = to_markdown(scores_only)
    assert "gaps between groups: not measured" in text
    assert "users: not provided" in text


def test_the_encoders_own_words_are_in_it(root: Path) -> None:
    found = to_markdown(card_of(root / "run", root))
    assert found.startswith("# Model card: tiny\n")
    assert "Random weights, not medical." in found
    assert "- medical: no" in found
    assert "training data: not provided" in found


def test_the_card_names_no_patient(root: Path) -> None:
    found = card_of(root / "run", root)
    assert not re.search(r"P0\d\d", to_markdown(found) + to_json(found))


def test_a_run_of_another_encoder_is_refused(root: Path, tmp_path: Path) -> None:
    tiny_encoder(tmp_path / "other", "other", seed=2)
    with pytest.raises(InvalidInput, match="expected a run made with other"):
        model_card(root / "run", read_card(tmp_path / "other"))


def test_a_run_whose_encoder_can_not_be_told_is_refused(root: Path, bare: Path) -> None:
    (bare / "cache" / "0123456789abcdef").mkdir()
    with pytest.raises(InvalidInput, match="expected a run of one encoder"):
        card_of(bare, root)
    shutil.rmtree(bare / "cache")
    with pytest.raises(InvalidInput, match="expected a run made with tiny"):
        card_of(bare, root)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("scores.csv", "image_id,score\na,1\n", "expected the columns of nearcase-eval run"),
        ("scores.csv", "image_id,patient_id,y_a,A_a,B_a\n1,p,1,much,0\n", "expected numbers"),
        ("retrieval.json", "[1]", "expected the file of nearcase-eval run"),
        ("retrieval.json", "{", "expected the file of nearcase-eval run"),
    ],
)
def test_damaged_files_are_refused(root: Path, bare: Path, file: str, text: str, message: str) -> None:
    (bare / file).write_text(text)
    with pytest.raises(InvalidInput, match=message):
        card_of(bare, root)


def test_names_can_not_break_the_page(root: Path, bare: Path) -> None:
    scores = bare / "scores.csv"
    scores.write_text(scores.read_text().replace("lying", "a|b<script>"))
    text = to_markdown(card_of(bare, root))
    rows = [line for line in text.splitlines() if line.startswith("| a")]
    assert rows
    assert all(len(re.findall(r"(?<!\\)\|", row)) == 9 for row in rows)
    assert "<script" not in text


def test_the_command_writes_markdown_and_json(root: Path, tmp_path: Path) -> None:
    arguments = [str(root / "run"), "--encoder", str(root / "encoder")]
    for name in ("card.md", "card.json"):
        CliRunner().invoke(command, [*arguments, "--out", str(tmp_path / name)], catch_exceptions=False)
    card = card_of(root / "run", root)
    assert (tmp_path / "card.md").read_text("utf-8") == to_markdown(card)
    assert json.loads((tmp_path / "card.json").read_text("utf-8"))["format"] == "nearcase-model-card/1"
    assert CliRunner().invoke(command, [*arguments, "--json"]).stdout == to_json(card)
    with pytest.raises(InvalidInput, match=r"\.md or \.json"):
        CliRunner().invoke(command, [*arguments, "--out", "card.pdf"], catch_exceptions=False)
