"""Score -> probability, fitted on the calibration images; each patient weighs once, by the share of their images."""

from __future__ import annotations

import numpy as np

from nearcase.decide.calibrate import Calibration, clip_of_votes
from nearcase.decide.finding import Finding
from nearcase.errors import InvalidInput
from nearcase_eval.logistic import maximise
from nearcase_eval.sample import Floats, Sample

KINDS = ("isotonic", "platt")
CLIP = 1e-12
"""Of scores that are no plain votes: an end for Platt's logit, below which next to no score lies."""


def calibrate(data: Sample, finding: Finding, kind: str) -> Calibration:
    """Returns the map of this kind, isotonic or platt.

    Isotonic says at least 1/(n + 2) and at most 1 - 1/(n + 2), n patients: the chance of what none of n, or all, had by
    Laplace's rule of succession (1774, Memoire sur la probabilite des causes par les evenements). Else a step in which
    nobody has the finding would say that nobody ever will, and no prevalence could move it.

    Raises:
        InvalidInput: Platt's slope would fall, or has no finite answer: the scores separate the classes.
    """
    weight, prevalence = _weights(data), prevalence_of(data)
    clip = _clip(finding)
    scores = np.clip(data.score, clip, 1.0 - clip)
    if kind == "isotonic":
        return _isotonic(data, scores, weight, prevalence, clip)
    design = np.column_stack([np.ones(data.n), np.log(scores) - np.log1p(-scores)])
    found = maximise(design, data.truth, weight=weight) if np.ptp(scores) > 0.0 else None
    if found is None or found[0][1] < 0.0:
        raise InvalidInput("expected scores that Platt's curve can be fitted to, got others; take isotonic")
    intercept, slope = (float(each) for each in found[0])
    return Calibration("platt", prevalence, clip, slope=slope, intercept=intercept)


def prevalence_of(data: Sample) -> float:
    """Returns the mean over patients of the share of their images that have the finding."""
    weight = _weights(data)
    return float(weight[data.truth].sum() / weight.sum())


def _weights(data: Sample) -> Floats:
    """One over the images of the row's patient, (N,)."""
    found: Floats = 1.0 / np.bincount(data.patient)[data.patient]
    return found


def _isotonic(data: Sample, scores: Floats, weight: Floats, prevalence: float, clip: float) -> Calibration:
    from sklearn.isotonic import IsotonicRegression

    least = 1.0 / (data.patients_among() + 2)
    model = IsotonicRegression(y_min=least, y_max=1.0 - least, out_of_bounds="clip")
    model.fit(scores, data.truth.astype(np.float64), sample_weight=weight)
    x, y = (tuple(map(float, each)) for each in (model.X_thresholds_, np.maximum.accumulate(model.y_thresholds_)))
    return Calibration("isotonic", prevalence, clip, x, y)


def _clip(finding: Finding) -> float:
    """Only plain votes can not say more than half a vote: a weighted share of 1e-5 is of far neighbours, and tells."""
    scorer = finding.scorer
    return clip_of_votes(scorer.k) if scorer.kind == "neighbours" and not scorer.is_weighted else CLIP
