"""The decision page: the slider's positions, the calls there, and nothing that a page may not hold."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from decisions import ASKED, CONTEXT, MASS, fit, hits

from nearcase.decide.decision import decide
from nearcase.decide.finding import undeclared
from nearcase.decide.operating import Choice
from nearcase.errors import InvalidInput
from nearcase.report.decision_page import render_decision
from nearcase.report.decision_view import call_at, sides, stops
from nearcase.report.style import style_of
from nearcase.types import (
    CaseFacts,
    DecisionResult,
    EncoderSummary,
    FindingFit,
    QueryImage,
    RefusedPoint,
    Roc,
    RocPoint,
)

ENCODER = EncoderSummary("lite0", "1", "ab", 1280, "stretch-1-224", False, "Not medical.", "CPU")
FITTED = fit()
POINTS = tuple(point.shown for point in FITTED.points)
ROC = Roc(
    tuple(RocPoint(p.threshold, p.sensitivity.value, 1.0 - p.specificity.value) for p in FITTED.curve), None, 100, 200
)
FOUND = hits([0.9, 0.895, 0.89, 0.88], ["1", "0", "1", "0"])


def result(choice: Choice | None = None) -> DecisionResult:
    decided = decide(MASS, FITTED, FOUND, replace(ASKED, choice=choice, prevalence=0.1), CONTEXT)
    query = QueryImage(CaseFacts(patient_id="SECRET^NAME", modality="CT", instance_uid="1.2.3.4"), thumbnail_jpeg=b"x")
    return DecisionResult((decided.decision,), query, ENCODER)


def page(found: DecisionResult, fits: FindingFit) -> str:
    return render_decision(found, {"mass": fits}, title="A <title>", generated_at="today")


def test_the_slider_has_every_point_and_opens_at_the_decisions_own() -> None:
    text = page(result(Choice("strict")), FindingFit(POINTS, ROC, (RefusedPoint("absent-pac", "needs more", 29, 3),)))
    inputs = re.findall(r'<input type="radio"[^>]*>', text)
    assert [re.search(r'aria-label="([^"]*)"', each)[1] for each in inputs] == ["lax", "middle", "strict"]  # type: ignore[index]
    assert [" checked" in each for each in inputs] == [False, False, True]
    assert "Not given: absent-pac, needs more." in text
    assert text.count("polyline") == 2
    assert "A &lt;title&gt;" in text


def test_a_target_of_the_caller_is_a_position_too() -> None:
    decision = result(Choice(target_sensitivity=0.9)).decisions[0]
    shown = stops(decision, POINTS)
    assert len(shown) == 4
    assert [stop.is_chosen for stop in shown].count(True) == 1


def test_calls_on_the_page_are_those_of_deciding_at_each_point() -> None:
    shown = result().decisions[0]
    for point in POINTS:
        decided = result(Choice(point.name)).decisions[0]
        assert call_at(shown, point).upper() == decided.call.name
    silent = decide(replace(MASS, floors=replace(MASS.floors, evidence=10**6)), FITTED, FOUND, ASKED, CONTEXT).decision
    assert {call_at(silent, point) for point in POINTS} == {"No call: too little evidence"}


def test_the_page_runs_no_script_and_names_no_patient() -> None:
    text = page(result(), FindingFit(POINTS, ROC))
    assert text == page(result(), FindingFit(POINTS, ROC))
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
