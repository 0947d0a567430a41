"""How far the images and people of today are from those that a finding was fitted on.

Three comparisons, each over the last WINDOW decisions about single images, all tenants together:

- Scores: the largest distance between their distribution and that of the fit's calibration patients (Kolmogorov and
  Smirnov), once as it is and once at the share of positives that suits best, since another prevalence alone moves it.
- Similarity: the share of images whose nearest case is farther than all but a small share of the fit's images had.
- Groups: the population stability index of sex and of age against the patients that the finding was validated in.

A fit without a curve, a familiarity or groups has no such comparison, and then there is no number.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from nearcase.decide.abstain import Reason
from nearcase.decide.fitted import CALIBRATION
from nearcase.decide.groups import groups_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nearcase.decide.fitted import Fitted
    from nearcase.types import CaseFacts, Decision

    Floats = NDArray[np.float64]

WINDOW = 1000
LEAST = 100
"""With fewer, chance alone moves every number: of 100 scores the distance exceeds 0.14 in one of twenty windows."""

SHARES = np.linspace(0.0, 1.0, 101)
"""Shares of positives that are tried."""

OTHER_SCORES = frozenset(
    reason.value
    for reason in (
        Reason.OUT_OF_SCOPE,
        Reason.NO_EVIDENCE,
        Reason.ENCODER_CHANGED,
        Reason.FINDING_CHANGED,
        Reason.SEVERAL_IMAGES,
        Reason.SCOPE_NARROWED,
    )
)
"""Abstentions whose scores are not of the fit's kind."""


@dataclass(frozen=True, slots=True)
class ScoreDistance:
    """Between the scores of today and those of the fit."""

    plain: float  # 0 to 1
    adjusted: float  # at the best share of positives
    positive_share: float  # that share


@dataclass(slots=True)
class _Window:
    """The last decisions with one fit."""

    fitted: Fitted
    scores: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))
    nearest: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))
    groups: dict[str, deque[str]] = field(default_factory=dict)  # by attribute


class Drift:
    """Keeps the windows of all findings that have a fit."""

    def __init__(self) -> None:
        self._windows: dict[str, _Window] = {}

    def take(self, decision: Decision, fitted: Fitted, facts: CaseFacts) -> None:
        """Takes in a decision about one image, unless its score is of another kind than the fit's."""
        if decision.abstain_reason in OTHER_SCORES:
            return
        window = self._windows.get(decision.finding)
        if window is None or window.fitted.sha256 != fitted.sha256:
            window = self._windows[decision.finding] = _Window(fitted)
        if decision.score is not None:
            window.scores.append(decision.score)
        if decision.evidence:
            window.nearest.append(max(piece.hit.similarity for piece in decision.evidence))
        for group in groups_of(facts, fitted.groups, ()):
            window.groups.setdefault(group.attribute, deque(maxlen=WINDOW)).append(group.name)

    def scores(self) -> Iterator[tuple[str, ScoreDistance]]:
        """Yields findings with enough scores and a curve to compare them with."""
        for name, window in list(self._windows.items()):
            found = score_distance(list(window.scores), window.fitted)
            if found is not None:
                yield name, found

    def unfamiliar(self) -> Iterator[tuple[str, float, float]]:
        """Yields a finding, the share of images unlike the fit's, and the share of the fit's own that are."""
        for name, window in list(self._windows.items()):
            known, nearest = window.fitted.familiarity, list(window.nearest)
            if known is not None and len(nearest) >= LEAST:
                yield name, sum(each < known.nearest for each in nearest) / len(nearest), known.share

    def groups(self) -> Iterator[tuple[str, str, float]]:
        """Yields a finding, an attribute, and how far the mix of its groups is from the validated one."""
        for name, window in list(self._windows.items()):
            for attribute, seen in list(window.groups.items()):
                then = {each.name: each.patients for each in window.fitted.groups if each.attribute == attribute}
                now = Counter(list(seen))
                if now.total() >= LEAST and any(then.values()):
                    yield name, attribute, stability(then, now)


def score_distance(scores: Sequence[float], fitted: Fitted) -> ScoreDistance | None:
    """Returns the distances; None with too few scores, or without a fitted curve."""
    split = next(each for each in fitted.splits if each.name == CALIBRATION)
    if len(scores) < LEAST or not fitted.curve or not (split.positive_patients and split.negative_patients):
        return None
    # At each fitted threshold, the share that scores there or above.
    thresholds = np.array([point.threshold for point in fitted.curve])
    ordered = np.sort(np.asarray(scores, np.float64))
    today = 1.0 - np.searchsorted(ordered, thresholds, side="left") / len(ordered)
    positives = np.array([point.positives_called for point in fitted.curve]) / split.positive_patients
    negatives = np.array([point.negatives_called for point in fitted.curve]) / split.negative_patients
    mixed: Floats = SHARES[:, None] * positives + (1.0 - SHARES[:, None]) * negatives
    distances = np.abs(mixed - today).max(axis=1)
    share = split.positive_patients / (split.positive_patients + split.negative_patients)
    plain = float(np.abs(share * positives + (1.0 - share) * negatives - today).max())
    return ScoreDistance(plain, min(plain, float(distances.min())), float(SHARES[distances.argmin()]))


def stability(then: Mapping[str, int], now: Mapping[str, int]) -> float:
    """Returns the population stability index of two mixes: 0 for equal ones, above 0.25 by custom for a shift.

    Half a count is added to each group, so that an absent one is no infinity (Jeffreys).
    """
    names = then.keys() | now.keys()
    before, after = _shares(then, names), _shares(now, names)
    return math.fsum((after[name] - before[name]) * math.log(after[name] / before[name]) for name in names)


def _shares(counts: Mapping[str, int], names: set[str]) -> dict[str, float]:
    total = sum(counts.values()) + 0.5 * len(names)
    return {name: (counts.get(name, 0) + 0.5) / total for name in names}
