"""When no call can honestly be made: each reason is a code and a sentence, the most fundamental first."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from nearcase.decide.basis import Basis
from nearcase.decide.neighbours import Shares, tally, weigh
from nearcase.decide.rate import apart, percent


class Reason(Enum):
    """Why no call was made; stable across versions."""

    OUT_OF_SCOPE = "OUT_OF_SCOPE"
    NO_EVIDENCE = "NO_EVIDENCE"
    ENCODER_CHANGED = "ENCODER_CHANGED"
    FINDING_CHANGED = "FINDING_CHANGED"
    SEVERAL_IMAGES = "SEVERAL_IMAGES"
    LIBRARY_CHANGED = "LIBRARY_CHANGED"
    SCOPE_NARROWED = "SCOPE_NARROWED"
    TOO_LITTLE_EVIDENCE = "TOO_LITTLE_EVIDENCE"
    NOTHING_SIMILAR = "NOTHING_SIMILAR"
    OUT_OF_DISTRIBUTION = "OUT_OF_DISTRIBUTION"
    GROUP_NOT_VALIDATED = "GROUP_NOT_VALIDATED"
    NEIGHBOURS_DISAGREE = "NEIGHBOURS_DISAGREE"
    MEASUREMENT_ONLY = "MEASUREMENT_ONLY"
    POINT_NOT_SUPPORTED = "POINT_NOT_SUPPORTED"
    NO_OPERATING_POINT = "NO_OPERATING_POINT"


@dataclass(frozen=True, slots=True)
class Abstention:
    """One reason not to call."""

    reason: Reason
    sentence: str


def abstention(basis: Basis) -> Abstention | None:
    """Returns the first reason why no call can be made; None where a call can."""
    return next((found for found in (check(basis) for check in _CHECKS) if found is not None), None)


def _scope(basis: Basis) -> Abstention | None:
    if basis.is_in_scope:
        return None
    sentence = f"{basis.finding.shown} is not decided for images of this kind: a stated fact is outside its scope."
    return Abstention(Reason.OUT_OF_SCOPE, sentence)


def _evidence(basis: Basis) -> Abstention | None:
    if basis.priors:
        return None
    return Abstention(Reason.NO_EVIDENCE, f"No case in scope tells the outcome of {basis.finding.shown}.")


def _encoder(basis: Basis) -> Abstention | None:
    if basis.fit is None or basis.fit.encoder == basis.encoder:
        return None
    sentence = "The encoder is not the one that the operating points were fitted with, so they do not hold."
    return Abstention(Reason.ENCODER_CHANGED, sentence)


def _definition(basis: Basis) -> Abstention | None:
    if basis.fit is None or not basis.fit.changed:
        return None
    sentence = f"The finding's {', '.join(basis.fit.changed)} changed since its operating points were fitted."
    return Abstention(Reason.FINDING_CHANGED, sentence)


def _several(basis: Basis) -> Abstention | None:
    """A mean of embeddings lies nearer to all others than an image does, so its scores are another distribution."""
    if basis.fit is None or basis.image_count == 1:
        return None
    sentence = f"The operating points hold for single images, and not for the mean of {basis.image_count} images."
    return Abstention(Reason.SEVERAL_IMAGES, sentence)


def _library(basis: Basis) -> Abstention | None:
    """By the labelled cases in scope alone; one that was relabelled or replaced counts twice: it is gone, another came.

    Where they were not counted, as in a fit that asks what it would call of its own library, the name tells.
    """
    if basis.fit is None:
        return None
    then, now, allowed = basis.fit.library, basis.library, basis.finding.floors.library_change
    if basis.kept is None:
        told = "" if then.snapshot == now.snapshot else _otherwise(then.labelled_count, now.labelled_count)
    else:
        gone, came = then.changes(now, basis.kept)
        told = f"of {then.labelled_count} labelled cases {gone} are gone or changed, and {came} came or changed"
        told = told if gone + came > allowed * then.labelled_count else ""
    if not told:
        return None
    sentence = f"The library changed since the fit, {told}; the points must be fitted again."
    return Abstention(Reason.LIBRARY_CHANGED, sentence)


def _otherwise(then: int, now: int) -> str:
    if then == now:
        return f"with {now} labelled cases then and now: some were replaced or changed, or others written"
    return f"from {then} labelled cases to {now}"


def _narrowed(basis: Basis) -> Abstention | None:
    if basis.fit is None or not basis.is_narrowed:
        return None
    sentence = (
        "The filter, or the leaving out of near duplicates, takes away cases that the operating points were fitted "
        "with, so they do not hold."
    )
    return Abstention(Reason.SCOPE_NARROWED, sentence)


def _little(basis: Basis) -> Abstention | None:
    found = len(basis.priors) if basis.labelled_count is None else basis.labelled_count
    needed = basis.finding.floors.evidence
    if found >= needed:
        return None
    sentence = f"Only {found} labelled cases are in scope, and {basis.finding.shown} needs {needed}."
    return Abstention(Reason.TOO_LITTLE_EVIDENCE, sentence)


def _similar(basis: Basis) -> Abstention | None:
    floors = [floor for floor in (basis.finding.floors.similarity, basis.limits.nearest) if floor is not None]
    nearest = max(prior.similarity for prior in basis.priors)
    if not floors or nearest >= max(floors):
        return None
    found, needed = apart(nearest, max(floors))
    sentence = f"No case is similar enough: the nearest has similarity {found}, and {needed} is needed."
    return Abstention(Reason.NOTHING_SIMILAR, sentence)


def _distribution(basis: Basis) -> Abstention | None:
    limits = basis.limits
    mean = math.fsum(prior.similarity for prior in basis.priors) / len(basis.priors)
    sentence = ""
    if limits.mean is not None and mean < limits.mean:
        found, needed = apart(mean, limits.mean)
        sentence = f"its neighbours have a mean similarity of {found}, and {needed} is needed"
    if limits.farthest is not None and (limits.distance is None or limits.distance > limits.farthest):
        far, most = ("unknown", f"{limits.farthest:.3g}")
        if limits.distance is not None:
            far, most = apart(limits.distance, limits.farthest)
        sentence = f"its distance is {far}, and {most} is the most"
    return Abstention(Reason.OUT_OF_DISTRIBUTION, f"The image is unlike the library: {sentence}.") if sentence else None


_GIVEN = {"sex": "facts.sex, --sex", "age": "facts.age_years, --age"}
"""Where a request says what the file does not."""


def _group(basis: Basis) -> Abstention | None:
    for group in basis.groups:
        if not group.is_validated:
            why = f": {group.reason}" if group.reason else ""
            mend = f"; give the {group.attribute} ({_GIVEN[group.attribute]})" if group.name == "not stated" else ""
            sentence = f"{basis.finding.shown} is not validated for {group.attribute} {group.name}{why}{mend}."
            return Abstention(Reason.GROUP_NOT_VALIDATED, sentence)
    return None


def _agreement(basis: Basis) -> Abstention | None:
    least = basis.finding.floors.agreement
    if not least:
        return None
    value, share = _sides(basis, tally(basis.priors, weigh(basis.priors, basis.finding.scorer)))[0]
    if share >= least:
        return None
    sentence = (
        f"The neighbours disagree: {value} leads with {percent(share)} of the weight, and {percent(least)} is needed."
    )
    return Abstention(Reason.NEIGHBOURS_DISAGREE, sentence)


def _sides(basis: Basis, shares: Shares) -> Shares:
    """Several positive values are one side, and so are all others: they do not disagree among themselves."""
    positives = set(basis.finding.positive_values)
    if not positives:
        return shares
    positive = math.fsum(share for value, share in shares if value in positives)
    other = math.fsum(share for value, share in shares if value not in positives)
    sides = (("the finding", positive), ("its absence", other))
    return sides if positive >= other else sides[::-1]


def _measurement(basis: Basis) -> Abstention | None:
    if not basis.finding.is_number:
        return None
    return Abstention(Reason.MEASUREMENT_ONLY, f"{basis.finding.shown} is a number, of which no call is made.")


def _point(basis: Basis) -> Abstention | None:
    if basis.selected is not None:
        return None
    if basis.refusal:
        return Abstention(Reason.POINT_NOT_SUPPORTED, f"The operating point can not be given: {basis.refusal}.")
    weights = weigh(basis.priors, basis.finding.scorer)
    value, share = tally(basis.priors, weights)[0]
    count = sum(prior.value == value for prior in basis.priors)
    sentence = (
        f"{count} of {len(basis.priors)} most similar labelled cases have {basis.finding.label} = {value}, with "
        f"{percent(share)} of the weight. No operating point was fitted for this finding, so no call is made."
    )
    return Abstention(Reason.NO_OPERATING_POINT, sentence)


_CHECKS: tuple[Callable[[Basis], Abstention | None], ...] = (
    _scope,
    _evidence,
    _encoder,
    _definition,
    _several,
    _library,
    _narrowed,
    _little,
    _similar,
    _distribution,
    _group,
    _agreement,
    _measurement,
    _point,
)
"""In this order: those after _evidence have at least one prior case."""
