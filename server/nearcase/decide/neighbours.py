"""Weighing the labelled cases: the published routine of MedImageInsight's evaluation.

The weight of case i is the softmax of t x cosine over all N cases of the reference set, t = 100. Those of the K nearest
are multiplied by the weight c of their class and summed by class; the sums are L1-normalised to the shares:

    w_i = exp(t s_i) / Z,  Z = sum over all N of exp(t s_j)
    share(v) = sum of c_v w_i over the K nearest with value v  /  sum of c w over the K nearest

Z is a factor of every term above and below, so it cancels: the K nearest alone give the exact shares, and so do
u_i = exp(t (s_i - s_1)), which can not overflow. What Z would tell is how much of the softmax the K nearest hold. That
is reported beside the shares, as bounds: each of the N - K others is at most as similar as the K-th, so

    T = sum of u over the K nearest,  R = (N - K) exp(t (s_K - s_1)) >= sum of u over the others
    T / (T + R) <= mass of the K nearest <= 1
    P / (T + R) <= mass of all positives <= (P + R) / (T + R),  P = sum of u over the positives of the K nearest

The cosines are the index's, of 32 bits: off by e, they move a share p by at most 2 t e p (1 - p) <= 50 e in the first
order. On the same cosines the shares are the formula's to 1e-6, and on cosines of 64 bits to 2e-5 (both tested).

An approximate index may have missed a nearer case, of which only s <= 1 is known: s_K then becomes 1 in R.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from nearcase.decide.finding import Scorer
from nearcase.types import Bounds, Strength

Shares = tuple[tuple[str, float], ...]
"""The share of each value, largest first, equal ones by value; they add up to 1."""


@dataclass(frozen=True, slots=True)
class Prior:
    """What of a hit the weighing needs; no patient data."""

    case_id: str
    similarity: float
    value: str  # of the finding's label


def in_order(prior: Prior) -> tuple[float, str]:
    """Returns the key that puts the nearest first; equal similarities are ordered by case id, on every day the same."""
    return -prior.similarity, prior.case_id


def weigh(priors: Sequence[Prior], scorer: Scorer) -> tuple[float, ...]:
    """Returns the weight of each of the K nearest, class weights included; they add up to 1."""
    classes = dict(scorer.class_weights)
    masses = _masses(priors, scorer.temperature) if scorer.is_weighted else (1.0,) * len(priors)
    weights = [mass * classes.get(prior.value, 1.0) for prior, mass in zip(priors, masses, strict=True)]
    total = math.fsum(weights)
    return tuple(weight / total for weight in weights)


def tally(priors: Sequence[Prior], weights: Sequence[float]) -> Shares:
    """Returns the share of each value."""
    by_value: dict[str, list[float]] = defaultdict(list)
    for prior, weight in zip(priors, weights, strict=True):
        by_value[prior.value].append(weight)
    return ordered({value: math.fsum(each) for value, each in by_value.items()})


def ordered(shares: dict[str, float]) -> Shares:
    """Returns the shares, largest first; equal ones by value."""
    return tuple(sorted(shares.items(), key=lambda item: (-item[1], item[0])))


def strength(
    priors: Sequence[Prior], temperature: float, labelled_count: int, positives: Collection[str], *, is_exact: bool
) -> Strength:
    """Returns bounds of the softmax mass on the K nearest and on positives; labelled_count is N."""
    masses = _masses(priors, temperature)
    top = math.fsum(masses)
    positive = math.fsum(mass for prior, mass in zip(priors, masses, strict=True) if prior.value in positives)
    nearest = max(prior.similarity for prior in priors)
    ceiling = min(prior.similarity for prior in priors) if is_exact else max(1.0, nearest)
    others = max(0, labelled_count - len(priors))
    rest = others * math.exp(min(temperature * (ceiling - nearest), 600.0))  # a double ends at exp(709)
    return Strength(Bounds(top / (top + rest), 1.0), Bounds(positive / (top + rest), (positive + rest) / (top + rest)))


def _masses(priors: Sequence[Prior], temperature: float) -> tuple[float, ...]:
    nearest = max((prior.similarity for prior in priors), default=0.0)
    return tuple(math.exp(temperature * (prior.similarity - nearest)) for prior in priors)
