"""The patient bootstrap: patients are drawn with replacement, and all rows of a patient come together.

Field and Welsh 2007 (JRSS B 69:369) for clusters; Efron and Tibshirani 1993, chapter 14, for BCa.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from statistics import NormalDist
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nearcase.errors import InvalidInput
from nearcase_eval.estimate import Estimate, State, not_estimable
from nearcase_eval.sample import Floats, Ints, numbers, one_axis, patient_codes, present, same_length
from nearcase_eval.weighted_pass import WORTH_COMPILING, Segment, Weights, has_numba, weighted_areas

BATCH = 50
"""Replicates whose weights are held together: 25 MB at 500,000 patients."""

ENOUGH = 0.95
"""Share of replicates that must be defined before their quantiles are called an interval."""


class Quantiles(NamedTuple):
    """An interval from replicates, and how many of them were not defined."""

    low: float
    high: float
    undefined: int


def patient_weights(
    patients: int,
    replicates: int,
    *,
    seed: int,
    strata: Ints | None = None,
    kind: Literal["multinomial", "poisson"] = "multinomial",
    batch: int = BATCH,
) -> Iterator[Weights]:
    """Yields how often each patient was drawn, (P, up to batch) uint8; the same draws whatever the batch.

    Args:
        patients: How many there are.
        replicates: How many times they are drawn.
        seed: Of numpy's PCG64.
        strata: (P,) code of each patient's stratum, for example "has a positive", which keeps its size in each draw.
        kind: "multinomial" draws P of P; "poisson" draws each patient on its own, for 100 patients or more.
        batch: Replicates held at once.

    Raises:
        InvalidInput: Poisson weights were asked for with strata, or with fewer than 100 patients.
    """
    if kind == "poisson" and (strata is not None or patients < 100):
        raise InvalidInput("expected 100 patients or more and no strata for Poisson weights", field="kind")
    rng = np.random.default_rng(seed)
    blocks = [np.arange(patients)] if strata is None else [np.flatnonzero(strata == code) for code in np.unique(strata)]
    for start in range(0, replicates, batch):
        width = min(batch, replicates - start)
        table = np.empty((patients, width), dtype=np.uint8)
        for column in range(width):
            if kind == "poisson":
                table[:, column] = rng.poisson(1.0, patients)
                continue
            for block in blocks:
                # A count above 255 among 256 patients or more has a probability below 1e-500.
                drawn = rng.integers(block.size, size=block.size)
                table[block, column] = np.bincount(drawn, minlength=block.size)
        yield table


def bootstrap_areas(
    segments: Sequence[Segment],
    patients: int,
    *,
    replicates: int,
    seed: int,
    strata: Ints | None = None,
    kind: Literal["multinomial", "poisson"] = "multinomial",
    compiled: bool | None = None,
) -> Floats:
    """Returns the AUROC of each segment in each replicate, (S, R); NaN where a class was not drawn."""
    if compiled is None:
        compiled = _worth_it(segments, replicates)
    batches = patient_weights(patients, replicates, seed=seed, strata=strata, kind=kind)
    return np.hstack([weighted_areas(segments, weights, compiled=compiled) for weights in batches])


def drawn_rows(patient: Ints, patients: int, *, replicates: int, seed: int) -> Iterator[tuple[Ints, Ints]]:
    """Yields (row numbers, new patient codes) of each replicate; a patient drawn twice becomes two patients."""
    order = np.argsort(patient, kind="stable")
    counts = np.bincount(patient, minlength=patients)
    first = np.concatenate([[0], np.cumsum(counts)[:-1]])
    rng = np.random.default_rng(seed)
    for _ in range(replicates):
        drawn = rng.integers(patients, size=patients)
        sizes = counts[drawn]
        codes = np.repeat(np.arange(patients), sizes)
        within = np.arange(codes.size) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        yield order[first[drawn][codes] + within], codes


def bootstrap_metric(
    metric: Callable[..., float],
    y_true: ArrayLike,
    y_pred: ArrayLike,
    *,
    patient: ArrayLike | None = None,
    replicates: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Estimate:
    """Returns any scikit-learn-style metric(y_true, y_pred) with its interval from the patient bootstrap.

    A replicate for which the metric raises ValueError or gives NaN is undefined; undefined ones are counted in the
    reason.

    Raises:
        InvalidInput: The arrays do not fit.
    """
    truth, predicted = one_axis(y_true, "y_true"), numbers(y_pred, "y_pred")
    same_length(truth.size, predicted.size, "y_pred")
    codes, patients = patient_codes(patient, truth.size)
    value = _defined(metric, truth, predicted)
    method = "patient bootstrap, percentile"
    if not math.isfinite(value):
        reason = "the metric is not defined on these rows"
        return not_estimable(reason, n=truth.size, patients=patients, method=method, level=level)
    rows = drawn_rows(codes, patients, replicates=replicates, seed=seed)
    drawn = np.array([_defined(metric, truth[index], predicted[index]) for index, _ in rows])
    return from_replicates(value, drawn, n=truth.size, patients=present(codes, patients), level=level)


def from_replicates(
    value: float, drawn: Floats, *, n: int, patients: int, level: float = 0.95, influence: Floats | None = None
) -> Estimate:
    """Returns an estimate from its replicates: percentile interval, or BCa when patients' influences are given.

    Too many undefined replicates leave no interval, since those that are left are not a random part.
    """
    method = "patient bootstrap, percentile" if influence is None else "patient bootstrap, BCa"
    counts = (n, patients, method, level)
    undefined = int(np.count_nonzero(~np.isfinite(drawn)))
    said = f"{undefined} of {drawn.size} replicates were not defined"
    if drawn.size == 0 or undefined > (1.0 - ENOUGH) * drawn.size:
        return Estimate(value, None, None, *counts, State.LOW_PRECISION, f"no interval: {said}")
    low, high, _ = percentile(drawn, level) if influence is None else bca(drawn, value, influence, level)
    spread = float(np.nanstd(drawn, ddof=1)) if drawn.size - undefined > 1 else None
    state = State.LOW_PRECISION if undefined else State.OK
    return Estimate(value, low, high, *counts, state, said if undefined else "", spread)


def percentile(drawn: Floats, level: float = 0.95) -> Quantiles:
    """Returns the percentile interval of the defined replicates; NaN limits when none is."""
    kept = drawn[np.isfinite(drawn)]
    if kept.size == 0:
        return Quantiles(math.nan, math.nan, int(drawn.size))
    low, high = np.quantile(kept, [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
    return Quantiles(float(low), float(high), int(drawn.size - kept.size))


def bca(drawn: Floats, value: float, influence: Floats, level: float = 0.95) -> Quantiles:
    """Returns the bias-corrected and accelerated interval.

    Args:
        drawn: Replicates.
        value: On the data themselves.
        influence: (P,) of each patient; the acceleration is their skewness (infinitesimal jackknife).
        level: Of the interval.
    """
    kept = np.sort(drawn[np.isfinite(drawn)])
    share = (np.count_nonzero(kept < value) + np.count_nonzero(kept <= value)) / (2.0 * max(kept.size, 1))
    scale = float(np.sum(influence**2)) ** 1.5
    if not 0.0 < share < 1.0 or scale == 0.0:
        return percentile(drawn, level)
    normal = NormalDist()
    bias, acceleration = normal.inv_cdf(share), float(np.sum(influence**3)) / (6.0 * scale)
    tails = (normal.inv_cdf((1.0 - level) / 2.0), normal.inv_cdf((1.0 + level) / 2.0))
    moved = [normal.cdf(bias + (bias + z) / (1.0 - acceleration * (bias + z))) for z in tails]
    low, high = np.quantile(kept, moved)
    return Quantiles(float(low), float(high), int(drawn.size - kept.size))


def _worth_it(segments: Sequence[Segment], replicates: int) -> bool:
    return sum(part.n for part in segments) * replicates >= WORTH_COMPILING and has_numba()


def _defined(metric: Callable[..., float], truth: NDArray[Any], predicted: Floats) -> float:
    try:
        return float(metric(truth, predicted))
    except ValueError:
        return math.nan
