"""Net benefit: what acting on a threshold is worth, in true positives per person (Vickers and Elkin 2006)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from nearcase.errors import InvalidInput
from nearcase_eval.estimate import Estimate, from_se, not_estimable
from nearcase_eval.means import estimate_of, mean_of
from nearcase_eval.proportions import rate_of
from nearcase_eval.sample import Bools, Ints, outcomes, patient_codes, probabilities, same_length


@dataclass(frozen=True, slots=True)
class NetBenefit:
    """The decision curve at one threshold probability; treating nobody is worth 0."""

    threshold: float
    model: Estimate
    treat_all: float | None  # None when its prevalence is not known
    prevalence: float | None  # that it was computed at


def net_benefit(
    y_true: ArrayLike,
    probability: ArrayLike,
    thresholds: Sequence[float],
    *,
    prevalence: float | None = None,
    patient: ArrayLike | None = None,
    level: float = 0.95,
) -> tuple[NetBenefit, ...]:
    """Returns TP/N - FP/N x pt/(1-pt) at each threshold probability pt.

    With a stated prevalence q it is se q - (1-sp)(1-q) pt/(1-pt), for a population other than these rows.

    Raises:
        InvalidInput: Probabilities, thresholds or prevalence are not inside 0..1, or the arrays do not fit.
    """
    truth, found = outcomes(y_true), probabilities(probability, "probability")
    same_length(truth.size, found.size, "probability")
    if any(not 0.0 < each < 1.0 for each in (*thresholds, *([] if prevalence is None else [prevalence]))):
        raise InvalidInput("expected thresholds and prevalence inside 0..1", field="thresholds")
    codes, patients = patient_codes(patient, truth.size)
    return tuple(_at(truth, found >= each, each, prevalence, codes, patients, level) for each in thresholds)


def _at(
    truth: Bools, called: Bools, threshold: float, prevalence: float | None, codes: Ints, patients: int, level: float
) -> NetBenefit:
    odds = threshold / (1.0 - threshold)
    share = prevalence if prevalence is not None else (float(truth.mean()) if truth.size else None)
    treat_all = None if share is None else share - (1.0 - share) * odds
    if prevalence is None:
        worth = np.where(called, np.where(truth, 1.0, -odds), 0.0)
        model = estimate_of(mean_of(worth, codes, patients), "net benefit", level=level)
    else:
        model = _standardised(truth, called, prevalence, odds, codes, patients, level)
    return NetBenefit(threshold, model, treat_all, share)


def _standardised(
    truth: Bools, called: Bools, prevalence: float, odds: float, codes: Ints, patients: int, level: float
) -> Estimate:
    hits = rate_of(called[truth], codes[truth], patients)
    alarms = rate_of(called[~truth], codes[~truth], patients)
    method = "net benefit at a stated prevalence"
    if hits is None or alarms is None:
        reason = "there are no positives or no negatives"
        return not_estimable(reason, n=truth.size, patients=patients, method=method, level=level)
    cost = (1.0 - prevalence) * odds
    part = prevalence * hits.part - cost * alarms.part
    value = prevalence * hits.value - cost * alarms.value
    se = float(np.sqrt(part @ part))
    return from_se(value, se, n=truth.size, patients=patients, method=method, level=level)
