"""AUROC with its interval: DeLong's for independent rows, Obuchowski's when patients have several."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

from numpy.typing import ArrayLike

from nearcase_eval.clustered import Area, area_of, variance_of
from nearcase_eval.estimate import Estimate, Shape, State, from_se, not_estimable, z_of
from nearcase_eval.sample import FEW_PATIENTS, Sample, sample_of


def auroc(
    y_true: ArrayLike,
    y_score: ArrayLike,
    *,
    patient: ArrayLike | None = None,
    level: float = 0.95,
    shape: Shape = Shape.LOGIT,
) -> Estimate:
    """Returns the AUROC with an interval over patients, or over rows when no patients are given.

    Shape.NORMAL is what pROC prints. An AUROC of 0 or 1, or a class worth fewer than ten patients, gets Newcombe's
    interval on the effective patient counts and the state LOW_PRECISION.

    Raises:
        InvalidInput: The arrays do not fit.
    """
    return auroc_of(sample_of(y_true, y_score, patient), level=level, shape=shape)


def auroc_of(data: Sample, *, level: float = 0.95, shape: Shape = Shape.LOGIT) -> Estimate:
    """Returns the AUROC of a checked sample."""
    area = area_of(data)
    if area is None:
        missing = "positives" if data.positives == 0 else "negatives"
        reason = f"there are no {missing}" if data.n else "there are no rows"
        return not_estimable(reason, n=data.n, patients=data.patients_among(), method="AUROC", level=level)
    return estimate_of(area, level=level, shape=shape)


def estimate_of(area: Area, *, level: float = 0.95, shape: Shape = Shape.LOGIT) -> Estimate:
    """Returns the estimate of an area, see auroc."""
    method = "DeLong" if area.patients == area.n else "Obuchowski over patients"
    if reason := _why_not_delta(area):
        low, high = newcombe(area.value, area.effective_positives, area.effective_negatives, level=level)
        return Estimate(
            area.value, low, high, area.n, area.patients, "Newcombe", level, State.LOW_PRECISION, reason, se_of(area)
        )
    se = math.sqrt(variance_of(area))
    found = from_se(area.value, se, n=area.n, patients=area.patients, method=method, level=level, shape=shape)
    return dataclasses.replace(found, method=f"{method}, {shape.value} interval")


def se_of(area: Area) -> float:
    """Returns the standard error; where patients show no variation, the one that Newcombe's interval stands for.

    The fallback is never 0, so that a group with an AUROC of 1 by luck does not become certain.
    """
    if _why_not_delta(area):
        low, high = newcombe(area.value, area.effective_positives, area.effective_negatives, level=0.95)
        return (high - low) / (2.0 * z_of(0.95))
    return math.sqrt(variance_of(area))


def newcombe(value: float, positives: float, negatives: float, *, level: float = 0.95) -> tuple[float, float]:
    """Returns the score-type interval of an AUROC, which has width even at 0 and 1.

    The limits t solve (value - t)^2 = z^2 V(t), V(t) = t(1-t) [1 + N(1-t)/(2-t) + N t/(1+t)] / (m n) with
    N = (m + n)/2 - 1. Source: Newcombe 2006 (Statistics in Medicine 25:559), method 5.
    """
    z2, half = z_of(level) ** 2, (positives + negatives) / 2.0 - 1.0

    def excess(t: float) -> float:
        spread = t * (1.0 - t) * (1.0 + half * (1.0 - t) / (2.0 - t) + half * t / (1.0 + t))
        return (value - t) ** 2 - z2 * spread / (positives * negatives)

    low = 0.0 if value <= 0.0 else _root(excess, outside=0.0, inside=value)
    high = 1.0 if value >= 1.0 else _root(excess, outside=1.0, inside=value)
    return low, high


def _why_not_delta(area: Area) -> str:
    if min(area.positive_patients, area.negative_patients) < FEW_PATIENTS:
        return f"a class has fewer than {FEW_PATIENTS} patients"
    if min(area.effective_positives, area.effective_negatives) < FEW_PATIENTS:
        return f"a few patients have most rows of a class: it is worth fewer than {FEW_PATIENTS} patients"
    if area.value in (0.0, 1.0) or variance_of(area) <= 0.0:
        return f"the AUROC is {area.value:g} without variation between patients"
    return ""


def _root(excess: Callable[[float], float], *, outside: float, inside: float) -> float:
    """Bisects between a limit where excess is positive and the value itself, where it is negative."""
    for _ in range(80):
        middle = (outside + inside) / 2.0
        outside, inside = (middle, inside) if excess(middle) > 0.0 else (outside, middle)
    return (outside + inside) / 2.0
