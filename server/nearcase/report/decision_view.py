"""What the decision page prints: every value already a string."""

from __future__ import annotations

import math
from dataclasses import dataclass

from nearcase.decide import rate
from nearcase.report import words
from nearcase.report.roc import Cross, cross
from nearcase.report.view import Fact, Picture, neighbour_picture
from nearcase.types import Decision, Evidence, Interval, OperatingPoint, PointCall, RefusedPoint, Roc


@dataclass(frozen=True, slots=True)
class FindingFit:
    """What was fitted for a finding."""

    roc: Roc | None = None
    refused: tuple[RefusedPoint, ...] = ()


@dataclass(frozen=True, slots=True)
class Stop:
    """One position of the slider: an operating point, and what the call is there."""

    name: str
    call: str
    facts: tuple[Fact, ...]
    place: Cross
    is_chosen: bool


@dataclass(frozen=True, slots=True)
class Side:
    """The cases that point one way."""

    title: str
    pictures: tuple[tuple[Picture, str], ...]  # with the share of the weight


def stops(decision: Decision) -> tuple[Stop, ...]:
    """Returns the points and pairs from the most sensitive to the most specific, with what the server says at each."""
    ordered = sorted(decision.point_calls, key=lambda each: (each.operating_point.threshold, each.name))
    return tuple(
        Stop(each.name, words.call(each), _facts(each), cross(each.operating_point), each.is_asked) for each in ordered
    )


def figures(decision: Decision) -> tuple[Fact, ...]:
    """Returns score, probability and what the call means, where they are known."""
    shares = (("Score", decision.score), ("Calibrated probability", decision.probability))
    facts = [Fact(name, words.NOT_STATED if value is None else rate.decimal(value)) for name, value in shares]
    for name, interval in (("PPV", decision.ppv), ("NPV", decision.npv)):
        if interval is not None:
            facts.append(Fact(f"{name} at the stated prevalence", percent(interval)))
    if decision.measurement:
        found = decision.measurement
        value = f"{found.mean:g} ({found.low:g} to {found.high:g}) {found.unit}".strip()
        facts.append(Fact(f"Measured, {found.level:.0%} {found.method}", value))
    if decision.strength:
        inside = decision.strength.in_evidence
        facts.append(
            Fact("Softmax mass on the evidence", f"at least {_rounded_down(inside.low)} of all labelled cases in scope")
        )
    return tuple(facts)


def sides(decision: Decision) -> tuple[Side, ...]:
    """Returns the supporting cases, which have a positive value of the finding, then the opposing ones.

    Where no value was declared positive, which is where there is no score, the leading value is supported.
    """
    if not decision.votes:
        return ()
    supporting = [piece for piece in decision.evidence if piece.is_supporting]
    opposing = [piece for piece in decision.evidence if not piece.is_supporting]
    leading = decision.votes[0].value
    for_it, against = (
        (f"{leading}, the value with the largest share", f"{leading}, with another value")
        if decision.score is None
        else ("the finding, with a positive value", "the finding, with another value")
    )
    return (
        Side(f"Supporting {for_it}: {words.cases(len(supporting))}", _pictures(supporting)),
        Side(f"Opposing {against}: {words.cases(len(opposing))}", _pictures(opposing)),
    )


def percent(interval: Interval) -> str:
    """Returns a share with its interval."""
    return f"{rate.percent(interval.value)} ({rate.percent(interval.low)} to {rate.percent(interval.high)})"


def among_called(point: OperatingPoint) -> str:
    """Returns sensitivity and specificity among the held-out images with a call at a point, with their patients."""
    sides = (
        ("sensitivity", point.called_sensitivity, point.called_positive_patients, "with"),
        ("specificity", point.called_specificity, point.called_negative_patients, "without"),
    )
    return ", ".join(
        f"{name} {percent(rate)} in {words.patients(patients)} {kind} the finding"
        if rate
        else f"{name} not known: no patient {kind} the finding had a call"
        for name, rate, patients, kind in sides
    )


def area(interval: Interval) -> str:
    """Returns an AUROC with its interval."""
    return f"{rate.decimal(interval.value)} ({rate.decimal(interval.low)} to {rate.decimal(interval.high)})"


def _rounded_down(bound: float) -> str:
    """A lower bound that is rounded up is none."""
    return f"{math.floor(bound * 10_000) / 100:.2f}%"


def _pictures(pieces: list[Evidence]) -> tuple[tuple[Picture, str], ...]:
    return tuple(
        (neighbour_picture(rank, piece.hit), f"{rate.percent(piece.weight)} of the weight")
        for rank, piece in enumerate(pieces, 1)
    )


def _facts(said: PointCall) -> tuple[Fact, ...]:
    """Of a pair, its two thresholds, and then each of its points."""
    point, rule_out = said.operating_point, said.rule_out_point
    if rule_out is None:
        return _point_facts(point)
    return (
        Fact("Rules in", point.name),
        *_point_facts(point),
        Fact("Rules out", rule_out.name),
        Fact("Negative below score", rate.decimal(rule_out.threshold)),
        *_point_facts(rule_out)[1:],
    )


def _point_facts(point: OperatingPoint) -> tuple[Fact, ...]:
    patients = f"{point.positive_patients:,} patients with the finding, {point.negative_patients:,} without"
    return (
        Fact("Positive from score", rate.decimal(point.threshold)),
        Fact("Sensitivity", percent(point.sensitivity)),
        Fact("Specificity", percent(point.specificity)),
        Fact("Held-out data", patients, is_long=True),
        Fact("Where a call is made", among_called(point), is_long=True),
        Fact("Promise", point.guarantee or f"none ({point.method})", is_long=True),
    )
