"""Section 6: thresholds, how they were chosen, and what they do on the test rows."""

from __future__ import annotations

import functools
from collections.abc import Callable

from numpy.typing import ArrayLike

from nearcase_eval.audit.frame import Frame, Outcome
from nearcase_eval.audit.plan import Plan, PointRule
from nearcase_eval.audit.report import Point
from nearcase_eval.benefit import NetBenefit, net_benefit
from nearcase_eval.estimate import Estimate
from nearcase_eval.operating import OperatingPoint, chosen_here, operating_point_of
from nearcase_eval.sample import Sample
from nearcase_eval.thresholds import Threshold, conformal, empirical, fixed, least_cost, pac, youden

CHOICES = 500
"""Replicates in which a threshold is chosen again, when it was chosen on the test rows."""

Choose = Callable[[ArrayLike, ArrayLike, ArrayLike], Threshold]


def points_of(frame: Frame, outcome: Outcome, plan: Plan) -> tuple[Point, ...]:
    """Returns the operating points of one finding; without a rule, Youden's as an exploration."""
    rules = plan.points or (PointRule("youden", "youden"),)
    return tuple(_point(frame, outcome, rule, plan) for rule in rules)


def chooser(rule: PointRule, plan: Plan) -> Choose:
    """Returns the function of (labels, scores, patients) that finds the rule's threshold."""
    aim = {"aim": rule.kind, "target": rule.value}
    promises: dict[str, Callable[..., Threshold]] = {
        "empirical": empirical,
        "conformal": functools.partial(conformal, seed=plan.seed),
        "pac": functools.partial(pac, confidence=rule.confidence, seed=plan.seed),
    }
    if rule.kind == "threshold":
        return lambda truth, score, patient: fixed(rule.value)
    if rule.kind == "youden":
        return lambda truth, score, patient: youden(truth, score)
    if rule.kind == "cost":
        stated = plan.prevalences[0] if plan.prevalences else None
        return lambda truth, score, patient: least_cost(
            truth, score, miss=rule.value, false_alarm=1.0, prevalence=stated
        )
    return lambda truth, score, patient: promises[rule.promise](truth, score, patient=patient, **aim)


def _point(frame: Frame, outcome: Outcome, rule: PointRule, plan: Plan) -> Point:
    test = frame.sample(outcome, frame.usable(outcome, frame.test))
    choose, is_fixed = chooser(rule, plan), rule.kind == "threshold"
    held_out = bool(frame.calibrate.any())
    source = frame.sample(outcome, frame.usable(outcome, frame.calibrate)) if held_out else test
    threshold = choose(source.truth, source.score, source.patient)
    where = "given beforehand" if is_fixed else "calibration part" if held_out else "test rows"
    at = None
    if threshold.value is not None:
        options = {"prevalences": plan.prevalences, "level": plan.level}
        at = operating_point_of(test, threshold.value, **options)  # type: ignore[arg-type]
    sensitivity, specificity = _quoted(test, at, choose, where, plan)
    return Point(
        outcome.finding.name,
        rule.text,
        threshold,
        where,
        bool(plan.points) and where != "test rows",
        at,
        sensitivity,
        specificity,
        _benefit(test, threshold.value, plan),
    )


def _quoted(
    test: Sample, at: OperatingPoint | None, choose: Choose, where: str, plan: Plan
) -> tuple[Estimate | None, Estimate | None]:
    if at is None:
        return None, None
    if where != "test rows" or not plan.replicates:
        return at.sensitivity, at.specificity
    replicates = min(CHOICES, plan.replicates)
    return chosen_here(
        test.truth,
        test.score,
        choose,
        patient=test.patient,
        replicates=replicates,
        seed=plan.seed,
        level=plan.level,
    )


def _benefit(test: Sample, threshold: float | None, plan: Plan) -> NetBenefit | None:
    """Net benefit needs a threshold probability: a score that is none has no net benefit."""
    if threshold is None or not 0.0 < threshold < 1.0 or test.n == 0:
        return None
    if test.score.min() < 0.0 or test.score.max() > 1.0:
        return None
    return net_benefit(test.truth, test.score, [threshold], patient=test.patient, level=plan.level)[0]
