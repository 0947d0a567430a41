"""Encoders side by side: real networks through the server's own code, on pictures whose outcome some can see."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from sklearn.metrics import roc_auc_score
from striped_cohort import striped_cohort
from tiny_encoders import tiny_encoder

from nearcase.encode.base import Encoder
from nearcase.encode.runtime import open_encoder
from nearcase.errors import InvalidInput
from nearcase_eval.baselines import baseline
from nearcase_eval.cohort import Cohort, read_cohort
from nearcase_eval.encoders import EncoderComparison, compare_encoders
from nearcase_eval.encoders_cli import compare_encoders_command, print_comparison, to_json
from nearcase_eval.latency import latency
from nearcase_eval.run import run_cohort


def told(stage: str, done: int, total: int) -> None:
    assert 0 <= done <= total


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("encoders")
    striped_cohort(root / "cohort", unreadable=2)
    tiny_encoder(root / "first", "first", seed=1)
    tiny_encoder(root / "second", "second", seed=2, dimension=16)
    return root


@pytest.fixture(scope="module")
def cohort(folder: Path) -> Cohort:
    return read_cohort(folder / "cohort" / "cohort.toml")


@pytest.fixture(scope="module")
def found(folder: Path, cohort: Cohort) -> EncoderComparison:
    encoders: list[Encoder] = [
        open_encoder(folder / "first"),
        open_encoder(folder / "second"),
        baseline("grey"),
        baseline("hog"),
    ]
    return compare_encoders(cohort, encoders, folder / "cache", k=5, seed=0, workers=2, progress=told)


def test_all_encoders_are_judged_on_the_same_rows(found: EncoderComparison) -> None:
    [finding] = found.findings
    assert (finding.finding, finding.rows, finding.positives, finding.patients) == ("lying", 58, 29, 58)
    assert finding.random_precision == pytest.approx(0.5)
    for scored in finding.scored:
        assert scored.comparison.names == ("first", "second", "grey32", "hog128")
        assert {area.n for area in scored.comparison.areas} == {58}
        assert len(scored.comparison.differences) == 6


def test_gradients_tell_lying_from_standing(found: EncoderComparison) -> None:
    [finding] = found.findings
    for scored in finding.scored:
        values = dict(zip(scored.comparison.names, [area.value for area in scored.comparison.areas], strict=True))
        assert values["hog128"] == pytest.approx(1.0, abs=0.02)


def test_the_areas_are_those_of_scikit_learn_on_the_runs_own_scores(
    folder: Path, cohort: Cohort, found: EncoderComparison
) -> None:
    run = run_cohort(cohort, open_encoder(folder / "first"), folder / "cache", k=5, seed=0, workers=1, progress=told)
    [result] = run.results
    truth = [image.truths["lying"] for image in result.images]
    neighbours, probe = found.findings[0].scored
    assert neighbours.comparison.areas[0].value == pytest.approx(roc_auc_score(truth, result.neighbours), abs=1e-12)
    assert probe.comparison.areas[0].value == pytest.approx(roc_auc_score(truth, result.probe), abs=1e-12)


def test_each_encoder_has_gaps_retrieval_and_costs(found: EncoderComparison) -> None:
    [finding] = found.findings
    for described in found.encoders:
        assert [gaps.attribute for gaps in finding.scored[0].gaps[described.name]] == ["sex", "age"]
        assert {metric.name for metric in finding.retrieval[described.name]} == {"precision@1", "precision@5", "mAP"}
        assert 0.0 < described.latency.model_ms <= described.latency.whole_ms
        assert described.latency.images == 28  # of 31 two can not be read, and one is not counted
    sizes = [described.file_bytes for described in found.encoders]
    assert sizes[0] == (found.encoders[0].file_bytes or 0) > 1000
    assert sizes[2:] == [None, None]
    assert [described.dimension for described in found.encoders] == [24, 16, 1024, 8100]


def test_what_machines_read_is_whole_and_finite(found: EncoderComparison) -> None:
    plain = json.loads(to_json(found))
    assert plain["format"] == "nearcase-encoders/1"
    [finding] = plain["findings"]
    assert (
        finding["scored"][0]["comparison"]["areas"][0]["value"] == found.findings[0].scored[0].comparison.areas[0].value
    )


def test_what_people_read_has_every_encoder_and_difference(
    found: EncoderComparison, capsys: pytest.CaptureFixture[str]
) -> None:
    print_comparison(found)
    printed = capsys.readouterr().out
    assert all(name in printed for name in ("first − second", "grey32 − hog128", "29 positives of 58 images"))
    assert printed.count("not medical") == 4


def test_fewer_than_two_encoders_or_one_twice_is_refused(cohort: Cohort, tmp_path: Path) -> None:
    for encoders in ([baseline("grey")], [baseline("grey"), baseline("grey")]):
        with pytest.raises(InvalidInput, match="two or more encoders of different names"):
            compare_encoders(cohort, encoders, tmp_path, k=5, seed=0, workers=1, progress=told)


def test_latency_of_a_cohort_that_can_not_be_read_is_refused(cohort: Cohort) -> None:
    with pytest.raises(InvalidInput, match="no image"):
        latency(cohort.files, ["000.png", "001.png"], baseline("grey"))


def test_the_command_compares_from_the_cache(folder: Path, found: EncoderComparison) -> None:
    arguments = [str(folder / "cohort" / "cohort.toml"), "--encoder", str(folder / "first"), "--baseline", "grey"]
    options = ["-k", "5", "--cache", str(folder / "cache"), "--json"]
    result = CliRunner().invoke(compare_encoders_command, [*arguments, *options], catch_exceptions=False)
    plain = json.loads(result.stdout)
    assert [each["name"] for each in plain["encoders"]] == ["first", "grey32"]
    again = plain["findings"][0]["scored"][0]["comparison"]["areas"][0]["value"]
    assert np.isclose(again, found.findings[0].scored[0].comparison.areas[0].value or 0.0)
