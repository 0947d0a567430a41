"""Section 5: how well a score finds one finding among all test rows."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from nearcase_eval.audit.frame import Frame, Outcome
from nearcase_eval.audit.plan import Plan
from nearcase_eval.audit.report import CurvePoint, Overall
from nearcase_eval.auroc import auroc_of
from nearcase_eval.averages import Averages, averages
from nearcase_eval.benefit import NetBenefit, net_benefit
from nearcase_eval.bootstrap import bootstrap_areas, from_replicates, patient_weights
from nearcase_eval.calibration import Calibration, calibration
from nearcase_eval.estimate import Estimate, Shape, State, from_se, not_estimable
from nearcase_eval.proportions import proportion_of, rate_of
from nearcase_eval.ranking import Curve, average_precision_under, curve_of, partial_area
from nearcase_eval.sample import Floats, Sample
from nearcase_eval.weighted_pass import segment_of

ECE_REPLICATES = 500
CURVE_POINTS = 61
"""Points of the curves that are kept: more can not be told apart in a figure."""

BENEFIT_AT = tuple(round(0.02 * step, 2) for step in range(1, 50))
"""Threshold probabilities of the decision curve."""

PARTIAL = 0.1
"""Largest false-positive rate of the partial AUROC."""


def overall_of(frame: Frame, outcome: Outcome, plan: Plan) -> Overall:
    """Returns section 5 for one finding."""
    data = frame.sample(outcome, frame.usable(outcome, frame.test))
    single = dataclasses.replace(data, patient=np.arange(data.n, dtype=np.int64), patients=data.n)
    found, reason = _calibration(data, plan)
    points = curve_of(data.truth, data.score)
    return Overall(
        outcome.finding.name,
        data.n,
        data.patients_among(),
        data.positives,
        area_with(data, plan),
        auroc_of(single, level=plan.level),
        _average_precision(data, points, plan),
        proportion_of(rate_of(data.truth, data.patient, data.patients), level=plan.level),
        _partial(data, plan),
        found,
        reason,
        _benefit(data, plan) if found else (),
        _curve(data, points, plan),
    )


def averages_of(frame: Frame, plan: Plan) -> Averages | None:
    """Returns macro and micro AUROC over the rows that have every finding; None for one finding or no such row."""
    if len(frame.outcomes) < 2:
        return None
    rows = np.logical_and.reduce([frame.usable(outcome, frame.test) for outcome in frame.outcomes])
    if not rows.any():
        return None
    pairs = {each.finding.name: (each.truth[rows], each.score[rows]) for each in frame.outcomes}
    return averages(pairs, patient=frame.patient[rows], level=plan.level)


def area_with(data: Sample, plan: Plan) -> Estimate:
    """Returns the AUROC with the interval that the plan asks for."""
    found = auroc_of(data, level=plan.level)
    if plan.interval != "bootstrap" or found.value is None or not plan.replicates:
        return found
    drawn = bootstrap_areas([segment_of(data)], data.patients, replicates=plan.replicates, seed=plan.seed)[0]
    return from_replicates(found.value, drawn, n=data.n, patients=data.patients_among(), level=plan.level)


def _calibration(data: Sample, plan: Plan) -> tuple[Calibration | None, str]:
    if data.n == 0:
        return None, "there are no rows"
    if data.score.min() < 0.0 or data.score.max() > 1.0:
        return None, f"scores from {data.score.min():g} to {data.score.max():g} are no probabilities"
    replicates = min(ECE_REPLICATES, plan.replicates)
    draws = {"replicates": replicates, "seed": plan.seed, "level": plan.level}
    return calibration(data.truth, data.score, patient=data.patient, votes=plan.votes, **draws), ""  # type: ignore[arg-type]


def _benefit(data: Sample, plan: Plan) -> tuple[NetBenefit, ...]:
    return net_benefit(data.truth, data.score, BENEFIT_AT, patient=data.patient, level=plan.level)


def _average_precision(data: Sample, points: Curve, plan: Plan) -> Estimate:
    """Average precision; its analytic interval is the logit interval on positive patients (Boyd, Eng and Page 2013)."""
    value, patients = average_precision_under(points), data.patients_among()
    method = "average precision, logit interval on positive patients"
    if value is None:
        return not_estimable("there are no positives", n=data.n, patients=patients, method=method, level=plan.level)
    if plan.interval == "bootstrap" and plan.replicates:
        return from_replicates(value, _drawn_precision(data, plan), n=data.n, patients=patients, level=plan.level)
    if not 0.0 < value < 1.0:
        reason = f"no interval: the value is {value:g}"
        return Estimate(value, None, None, data.n, patients, method, plan.level, State.LOW_PRECISION, reason)
    se = math.sqrt(value * (1.0 - value) / data.patients_among(data.truth))
    counts = {"n": data.n, "patients": patients}
    return from_se(value, se, method=method, level=plan.level, shape=Shape.LOGIT, **counts)


def _drawn_precision(data: Sample, plan: Plan) -> Floats:
    """Average precision of each patient bootstrap replicate: the scores are sorted once for all of them."""
    order = np.argsort(-data.score, kind="stable")
    ranked, truth, patient = data.score[order], data.truth[order], data.patient[order]
    last = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))
    found = []
    for weights in patient_weights(data.patients, plan.replicates, seed=plan.seed):
        for column in weights.T:
            weight = column[patient].astype(np.float64)
            called = np.cumsum(np.stack([weight * truth, weight * ~truth]), axis=1)[:, last]
            curve = Curve(np.zeros(0), *(np.append(0.0, each) for each in called))
            value = average_precision_under(curve)
            found.append(math.nan if value is None else value)
    return np.array(found)


def _partial(data: Sample, plan: Plan) -> Estimate:
    value, patients = partial_area(data.truth, data.score, max_fpr=PARTIAL), data.patients_among()
    method = "partial AUROC over specificity 0.9 to 1 (McClish)"
    if value is None:
        reason = "one class is missing"
        return not_estimable(reason, n=data.n, patients=patients, method=method, level=plan.level)
    if plan.interval != "bootstrap" or not plan.replicates:
        reason = "an interval needs --ci bootstrap"
        return Estimate(value, None, None, data.n, patients, method, plan.level, State.OK, reason)
    drawn = []
    for weights in patient_weights(data.patients, plan.replicates, seed=plan.seed):
        for column in weights.T:
            area = partial_area(data.truth, data.score, max_fpr=PARTIAL, weights=column[data.patient])
            drawn.append(math.nan if area is None else area)
    return from_replicates(value, np.array(drawn), n=data.n, patients=patients, level=plan.level)


def _curve(data: Sample, points: Curve, plan: Plan) -> tuple[CurvePoint, ...]:
    """Points spread evenly along the curve, ends included; none that fewer than plan.suppress rows make."""
    if not 0 < data.positives < data.n:
        return ()
    called = points.true_positive + points.false_positive
    along = points.sensitivity + points.false_positive_rate
    wanted = np.searchsorted(along, np.linspace(0.0, 2.0, CURVE_POINTS))
    places = np.unique(np.clip(np.append(wanted, along.size - 1), 0, along.size - 1))
    shown = [int(place) for place in places if not 0 < min(called[place], data.n - called[place]) < plan.suppress]
    positives = data.rows(data.truth).compact()
    return tuple(_curve_point(positives, points, place, plan.level) for place in shown)


def _curve_point(positives: Sample, points: Curve, place: int, level: float) -> CurvePoint:
    threshold = float(points.threshold[place])
    hits = positives.score >= threshold
    estimate = proportion_of(rate_of(hits, positives.patient, positives.patients), level=level)
    called = float(points.true_positive[place] + points.false_positive[place])
    return CurvePoint(
        threshold if math.isfinite(threshold) else None,
        float(points.sensitivity[place]),
        estimate.low,
        estimate.high,
        float(points.false_positive_rate[place]),
        float(points.true_positive[place]) / called if called else None,
    )
