"""Score -> probability, fitted on the calibration images."""

from __future__ import annotations

import numpy as np

from nearcase.decide.calibrate import Calibration, clip_of_votes
from nearcase.decide.finding import Finding
from nearcase.errors import InvalidInput
from nearcase_eval.logistic import maximise
from nearcase_eval.sample import Sample

KINDS = ("isotonic", "platt")
CLIP = 1e-6
"""Of scores that are no votes: where the logit still has digits."""


def calibrate(data: Sample, finding: Finding, kind: str) -> Calibration:
    """Returns the map of this kind, isotonic or platt.

    Raises:
        InvalidInput: Platt's slope would fall, or has no finite answer: the scores separate the classes.
    """
    clip = clip_of_votes(finding.scorer.k) if finding.scorer.kind == "neighbours" else CLIP
    prevalence = data.positives / data.n
    scores = np.clip(data.score, clip, 1.0 - clip)
    if kind == "isotonic":
        return _isotonic(data, scores, prevalence, clip)
    design = np.column_stack([np.ones(data.n), np.log(scores) - np.log1p(-scores)])
    found = maximise(design, data.truth) if np.ptp(scores) > 0.0 else None
    if found is None or found[0][1] < 0.0:
        raise InvalidInput("expected scores that Platt's curve can be fitted to, got others; take isotonic")
    intercept, slope = (float(each) for each in found[0])
    return Calibration("platt", prevalence, clip, slope=slope, intercept=intercept)


def _isotonic(data: Sample, scores: np.ndarray, prevalence: float, clip: float) -> Calibration:
    from sklearn.isotonic import IsotonicRegression

    model = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip").fit(scores, data.truth.astype(np.float64))
    x, y = (tuple(map(float, each)) for each in (model.X_thresholds_, np.maximum.accumulate(model.y_thresholds_)))
    return Calibration("isotonic", prevalence, clip, x, y)
