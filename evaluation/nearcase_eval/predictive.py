"""PPV and NPV at a stated prevalence, and likelihood ratios, from sensitivity and specificity.

Intervals are symmetric on the logit (Mercaldo, Lau and Zhou 2007, Statistics in Medicine 26:2170) and log scale:

    var logit PPV = (1-se)/(se m) + sp/((1-sp) n)      var logit NPV = se/((1-se) m) + (1-sp)/(sp n)

with m and n the effective numbers of positives and negatives when patients have several rows. That patients err alike
on their positive and negative rows is left out; it would make these intervals narrower.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from nearcase.errors import InvalidInput
from nearcase_eval.estimate import Estimate, State, not_estimable, z_of
from nearcase_eval.proportions import Rate


@dataclass(frozen=True, slots=True)
class Predictive:
    """What a call means where the finding has this prevalence."""

    prevalence: float
    ppv: Estimate
    npv: Estimate


@dataclass(frozen=True, slots=True)
class LikelihoodRatios:
    """How much a call changes the odds; these do not depend on prevalence."""

    positive: Estimate  # se / (1 - sp)
    negative: Estimate  # (1 - se) / sp


def at_prevalence(
    sensitivity: Rate | None, specificity: Rate | None, prevalence: float, *, level: float = 0.95
) -> Predictive:
    """Returns PPV and NPV at a prevalence; with a rate of 0 or 1 the intervals take half a case in each cell.

    Raises:
        InvalidInput: The prevalence is not inside 0..1.
    """
    if not 0.0 < prevalence < 1.0:
        raise InvalidInput(f"expected a prevalence inside 0..1, got {prevalence}", field="prevalence")
    if sensitivity is None or specificity is None:
        missing = _missing("PPV and NPV", level)
        return Predictive(prevalence, missing, missing)
    odds = prevalence / (1.0 - prevalence)
    se, sp = sensitivity.value, specificity.value
    cells = _Cells.of(sensitivity, specificity)
    counts = {"n": sensitivity.n + specificity.n, "patients": max(sensitivity.patients, specificity.patients)}
    ppv = _share(se * odds, 1.0 - sp, cells.positive_ratio * odds, cells.positive_variance, level=level, **counts)
    npv = _share(sp, (1.0 - se) * odds, 1.0 / (cells.negative_ratio * odds), cells.negative_variance, level, **counts)
    return Predictive(prevalence, ppv, npv)


def likelihood_ratios(sensitivity: Rate | None, specificity: Rate | None, *, level: float = 0.95) -> LikelihoodRatios:
    """Returns LR+ and LR- with log intervals (Simel 1991); a ratio over 0 has limits but no value."""
    if sensitivity is None or specificity is None:
        return LikelihoodRatios(_missing("LR+", level), _missing("LR-", level))
    cells, se, sp = _Cells.of(sensitivity, specificity), sensitivity.value, specificity.value
    counts = {"n": sensitivity.n + specificity.n, "patients": max(sensitivity.patients, specificity.patients)}
    positive = _ratio(se, 1.0 - sp, cells.positive_ratio, cells.positive_variance, level=level, **counts)
    negative = _ratio(1.0 - se, sp, cells.negative_ratio, cells.negative_variance, level=level, **counts)
    return LikelihoodRatios(positive, negative)


@dataclass(frozen=True, slots=True)
class _Cells:
    """Likelihood ratios and the variances of their logs; 1/2 is added to each cell when one is empty."""

    positive_ratio: float
    positive_variance: float
    negative_ratio: float
    negative_variance: float

    @classmethod
    def of(cls, sensitivity: Rate, specificity: Rate) -> _Cells:
        m, n = sensitivity.effective_n, specificity.effective_n
        tp, tn = sensitivity.value * m, specificity.value * n
        empty = sensitivity.k in (0, sensitivity.n) or specificity.k in (0, specificity.n)
        add = 0.5 if empty else 0.0
        tp, fn, tn, fp = tp + add, m - tp + add, tn + add, n - tn + add
        se, sp, m, n = tp / (tp + fn), tn / (tn + fp), tp + fn, tn + fp
        return cls(
            se / (1.0 - sp),
            (1.0 - se) / (se * m) + sp / ((1.0 - sp) * n),
            (1.0 - se) / sp,
            se / ((1.0 - se) * m) + (1.0 - sp) / (sp * n),
        )


def _share(
    right: float, wrong: float, odds: float, variance: float, level: float, *, n: int, patients: int
) -> Estimate:
    """A predictive value: of the calls, the share that is right, with its interval on the logit scale."""
    method = "Mercaldo logit"
    if right + wrong == 0.0:
        return not_estimable("no row is called this way", n=n, patients=patients, method=method, level=level)
    half = z_of(level) * math.sqrt(variance)
    low, high = (1.0 / (1.0 + math.exp(-(math.log(odds) + side * half))) for side in (-1, 1))
    value = right / (right + wrong)
    return Estimate(value, min(low, value), max(high, value), n, patients, method, level)


def _ratio(
    top: float, bottom: float, center: float, variance: float, level: float, *, n: int, patients: int
) -> Estimate:
    half = z_of(level) * math.sqrt(variance)
    low, high = center * math.exp(-half), center * math.exp(half)
    if bottom == 0.0:
        reason = f"division by zero; with half a case in each cell the ratio lies in {low:.3g} to {high:.3g}"
        return Estimate(None, None, None, n, patients, "log", level, State.NOT_ESTIMABLE, reason)
    value = top / bottom
    return Estimate(value, min(low, value), max(high, value), n, patients, "log", level)


def _missing(method: str, level: float) -> Estimate:
    return not_estimable("there are no positives or no negatives", n=0, patients=0, method=method, level=level)
