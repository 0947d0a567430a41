"""The decision page: the slider's positions, the calls there, and nothing that a page may not hold."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import pytest
from decisions import ASKED, CHOICES, CONTEXT, MASS, fit, group, hits

from nearcase.decide.decision import decide
from nearcase.decide.finding import Finding, undeclared
from nearcase.decide.fitted import Fitted
from nearcase.decide.operating import Choice
from nearcase.errors import InvalidInput
from nearcase.report import words
from nearcase.report.decision_page import render_decision
from nearcase.report.decision_view import FindingFit, sides, stops
from nearcase.report.style import style_of
from nearcase.types import (
    CaseFacts,
    DecisionResult,
    EncoderSummary,
    QueryImage,
    RefusedPoint,
    Roc,
    RocPoint,
)

ENCODER = EncoderSummary("lite0", "1", "ab", 1280, "stretch-1-224", False, "Not medical.", "CPU")
FITTED = fit()
ROC = Roc(
    tuple(RocPoint(p.threshold, p.sensitivity.value, 1.0 - p.specificity.value) for p in FITTED.curve), None, 100, 200
)
FOUND = hits([0.9, 0.895, 0.89, 0.88], ["1", "0", "1", "0"])
WOMAN = CaseFacts(sex="F")


def result(choice: Choice | None = None) -> DecisionResult:
    decided = decide(MASS, FITTED, FOUND, replace(ASKED, choice=choice, prevalence=0.1), CONTEXT)
    query = QueryImage(CaseFacts(patient_id="SECRET^NAME", modality="CT", instance_uid="1.2.3.4"), thumbnail_jpeg=b"x")
    return DecisionResult((decided.decision,), query, ENCODER)


def page(found: DecisionResult, fits: FindingFit) -> str:
    return render_decision(found, {"mass": fits}, title="A <title>", generated_at="today")


def test_the_slider_has_every_point_and_opens_at_the_decisions_own() -> None:
    text = page(result(Choice("strict")), FindingFit(ROC, (RefusedPoint("absent-pac", "needs more", 29, 3),)))
    inputs = re.findall(r'<input type="radio"[^>]*>', text)
    assert [re.search(r'aria-label="([^"]*)"', each)[1] for each in inputs] == ["lax", "middle", "both", "strict"]  # type: ignore[index]
    assert [" checked" in each for each in inputs] == [False, False, False, True]
    assert "Not given: absent-pac, needs more." in text
    assert text.count("polyline") == 2
    assert "A &lt;title&gt;" in text


def test_a_target_of_the_caller_is_a_position_too() -> None:
    decision = result(Choice(target_sensitivity=0.9)).decisions[0]
    shown = stops(decision)
    assert len(shown) == 5
    assert [stop.is_chosen for stop in shown].count(True) == 1


def said_at_each(fitted: Fitted, finding: Finding, choices: Sequence[Choice]) -> None:
    """Whatever was asked for, each stop is what asking for that one answers."""
    for choice in choices:
        asked = replace(ASKED, choice=choice, facts=WOMAN, prevalence=0.1)
        decided = decide(finding, fitted, FOUND, asked, CONTEXT).decision
        shown = stops(decided)
        assert {stop.name for stop in shown} >= {"lax", "middle", "strict", "both"}
        assert [stop.call for stop in shown if stop.is_chosen] == [words.call(decided)]
        for stop in shown:
            if stop.name in fitted.point_names:
                there = replace(ASKED, choice=Choice(stop.name), facts=WOMAN)
                assert stop.call == words.call(decide(finding, fitted, FOUND, there, CONTEXT).decision)


def test_calls_on_the_page_are_those_of_deciding_at_each_point() -> None:
    said_at_each(FITTED, MASS, CHOICES)
    silent = replace(MASS, floors=replace(MASS.floors, evidence=10**6))
    said_at_each(FITTED, silent, CHOICES)
    decided = decide(silent, FITTED, FOUND, ASKED, CONTEXT).decision
    assert {stop.call for stop in stops(decided)} == {"No call: too little evidence"}


@pytest.mark.parametrize(
    ("positives", "negatives", "failing"),
    [(0.6, 0.0, ["both", "strict"]), (1.0, 0.4, ["both", "lax"])],
    ids=["missed at the strict point", "alarmed at the lax point"],
)
def test_a_group_that_fails_at_one_point_is_told_at_that_point_alone(
    positives: float, negatives: float, failing: list[str]
) -> None:
    women = replace(group("sex", "F"), positives=((positives,),) * 10, negatives=((negatives,),) * 10)
    fitted = replace(FITTED, groups=(women,))
    said_at_each(fitted, MASS, CHOICES)
    asked = replace(ASKED, choice=Choice(failing[-1]), facts=WOMAN)
    decided = decide(MASS, fitted, FOUND, asked, CONTEXT).decision
    shown = {stop.name: stop.call for stop in stops(decided)}
    assert sorted(name for name, call in shown.items() if call == "No call: group not validated") == failing
    assert set(shown.values()) - {"No call: group not validated"} <= {"Positive", "Negative", "Possible"}


def test_a_pair_that_was_asked_is_shown_first_and_its_call_is_the_headings() -> None:
    text = page(result(Choice("both")), FindingFit(ROC))
    checked = re.search(r'aria-label="([^"]*)" checked', text)
    assert checked
    assert checked[1] == "both"
    assert '<p class="call">Possible</p>' in text
    assert '<p class="call">Possible at both</p>' in text
    assert "Negative below score" in text


def test_a_finding_without_a_fit_has_no_stops() -> None:
    assert stops(decide(undeclared("mass"), None, FOUND, ASKED, CONTEXT).decision) == ()


def test_the_page_runs_no_script_and_names_no_patient() -> None:
    text = page(result(), FindingFit(ROC))
    assert text == page(result(), FindingFit(ROC))
    assert "<script" not in text
    assert "http" not in text.replace("http-equiv", "")
    assert not re.search(r"\sstyle=|\son[a-z]+=", text)
    assert "SECRET" not in text
    assert "1.2.3.4" not in text
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)
    assert style
    policy = re.search(r"sha256-([^']+)'", text)
    assert policy
    assert style_of(rules=style[1]).sha256_base64 == policy[1]


def test_supporting_and_opposing_cases_are_apart() -> None:
    text = page(result(), FindingFit())
    assert "Supporting the finding, with a positive value: 2 cases" in text
    assert "Opposing the finding, with another value: 2 cases" in text
    assert '<input type="radio" class="stop-0"' in text  # the decision's own point, without any list


def test_positive_cases_support_the_finding_though_others_lead() -> None:
    found = decide(MASS, FITTED, hits([0.9, 0.89, 0.88], ["0", "0", "1"]), ASKED, CONTEXT).decision
    assert found.votes[0].value == "0"
    assert [piece.is_supporting for piece in found.evidence] == [False, False, True]
    assert [side.title.partition(":")[2].strip() for side in sides(found)] == ["1 case", "2 cases"]
    unknown = decide(undeclared("mass"), None, hits([0.9, 0.89, 0.88], ["0", "0", "1"]), ASKED, CONTEXT).decision
    assert [piece.is_supporting for piece in unknown.evidence] == [True, True, False]
    assert sides(unknown)[0].title == "Supporting 0, the value with the largest share: 2 cases"


def test_no_decision_is_no_page() -> None:
    with pytest.raises(InvalidInput, match="at least one decision"):
        render_decision(replace(result(), decisions=()), {}, title="", generated_at="")
