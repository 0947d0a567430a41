"""From the basis to the decision: the one way, today and in a replay."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from nearcase.decide.abstain import Abstention, abstention
from nearcase.decide.basis import Basis
from nearcase.decide.neighbours import Prior, Shares, strength, tally, weigh
from nearcase.decide.operating import Selected
from nearcase.decide.point import FittedPoint
from nearcase.decide.rate import Rate, apart, npv, percent, ppv
from nearcase.decide.regress import regress
from nearcase.decide.scorers import score
from nearcase.types import Call, Case, CaseFacts, Decision, Evidence, Hit, Interval, Measurement, Strength, Vote

_NO_FACTS = CaseFacts()


def verdict(basis: Basis) -> Decision:
    """Returns the decision; its evidence has of each case only the id."""
    finding = basis.finding
    shares = score(finding.scorer, basis.priors, basis.measured)
    found = _score(basis, shares)
    why = abstention(basis)
    votes = _votes(basis, shares)
    shown = Decision(
        finding=finding.name,
        call=Call.ABSTAIN,
        votes=votes,
        evidence=_evidence(basis, votes[0].value if votes else ""),
        score=found,
        strength=_strength(basis),
        measurement=_measurement(basis, shares),
    )
    return _abstained(shown, why) if why else _called(shown, basis)


def called(basis: Basis, found: float | None) -> tuple[Call, str]:
    """Returns the call of the verdict, and its reason to abstain, from its score: all that a point changes."""
    why = abstention(basis)
    return (Call.ABSTAIN, why.reason.value) if why else (_call(*_known(basis, found)), "")


def _score(basis: Basis, shares: Shares) -> float | None:
    positives = basis.finding.positive_values
    if not positives or not shares:
        return None
    return min(1.0, math.fsum(share for value, share in shares if value in positives))


def _votes(basis: Basis, shares: Shares) -> tuple[Vote, ...]:
    """One for each value that has a share or a case; those of the cases where the scorer's could not be measured."""
    shares = shares or tally(basis.priors, weigh(basis.priors, basis.finding.scorer))
    values = [prior.value for prior in basis.priors]
    silent = sorted(set(values) - dict(shares).keys())
    return tuple(
        Vote(value, share, values.count(value)) for value, share in (*shares, *((each, 0.0) for each in silent))
    )


def _evidence(basis: Basis, leading: str) -> tuple[Evidence, ...]:
    """The leading value is what the cases support where the finding has no positive values."""
    weights = weigh(basis.priors, basis.finding.scorer)
    supporting = basis.finding.positive_values or (leading,)
    return tuple(
        Evidence(_hit(prior), prior.value, weight, prior.value in supporting)
        for prior, weight in zip(basis.priors, weights, strict=True)
    )


def _hit(prior: Prior) -> Hit:
    return Hit(Case(prior.case_id, _NO_FACTS), prior.similarity)


def _strength(basis: Basis) -> Strength | None:
    if basis.labelled_count is None or not basis.priors:
        return None
    finding = basis.finding
    return strength(
        basis.priors,
        finding.scorer.temperature,
        basis.labelled_count,
        finding.positive_values,
        is_exact=basis.is_exact,
    )


def _measurement(basis: Basis, shares: Shares) -> Measurement | None:
    if not basis.finding.is_number or not shares:
        return None
    residuals = basis.fit.residuals if basis.fit else None
    return regress(shares, residuals, basis.finding.unit)


def _abstained(shown: Decision, why: Abstention) -> Decision:
    return replace(shown, abstain_reason=why.reason.value, explanation=why.sentence)


def _called(shown: Decision, basis: Basis) -> Decision:
    found, selected = _known(basis, shown.score)
    call = _call(found, selected)
    calibration = basis.fit.calibration if basis.fit else None
    return replace(
        shown,
        call=call,
        explanation=_explained(basis, found, call, selected),
        probability=calibration.probability(found, basis.prevalence) if calibration else None,
        operating_point=selected.point.shown,
        rule_out_point=selected.rule_out.shown if selected.rule_out else None,
        ppv=_predictive(selected.point, basis.prevalence, ppv),
        npv=_predictive(selected.rule_out or selected.point, basis.prevalence, npv),
    )


def _known(basis: Basis, found: float | None) -> tuple[float, Selected]:
    if basis.selected is None or found is None:
        raise AssertionError("a basis without a point or a score abstains")
    return found, basis.selected


def _call(found: float, selected: Selected) -> Call:
    if found >= selected.point.threshold:
        return Call.POSITIVE
    if selected.rule_out is not None and found >= selected.rule_out.threshold:
        return Call.POSSIBLE
    return Call.NEGATIVE


def _predictive(
    point: FittedPoint, prevalence: float | None, value: Callable[[Rate, Rate, float], Interval | None]
) -> Interval | None:
    """Of a pair, the PPV is that of ruling in and the NPV that of ruling out."""
    return None if prevalence is None else value(point.sensitivity, point.specificity, prevalence)


def _explained(basis: Basis, found: float, call: Call, selected: Selected) -> str:
    point = (selected.rule_out or selected.point) if call is Call.NEGATIVE else selected.point
    score, threshold = apart(found, point.threshold)
    side = "at or above" if call is Call.POSITIVE else "below"
    if call is Call.POSSIBLE and selected.rule_out is not None:
        _, lower = apart(found, selected.rule_out.threshold)
        side = f"at or above the threshold {lower} of {selected.rule_out.name} and below"
    shown = point.shown
    return (
        f"{basis.finding.shown}: the score {score} is {side} the threshold {threshold} of {point.name}, "
        f"which has a held-out sensitivity of {_percent(shown.sensitivity)} and specificity of "
        f"{_percent(shown.specificity)}, in {point.positive_patients} patients with the finding and "
        f"{point.negative_patients} without."
    )


def _percent(interval: Interval) -> str:
    return f"{percent(interval.value)} ({percent(interval.low)} to {percent(interval.high)})"
