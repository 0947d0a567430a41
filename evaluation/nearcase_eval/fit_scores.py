"""Scores of images by the server's own scorers, and the answers of a finding that is a number."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from nearcase.decide.finding import Finding, number_of
from nearcase.decide.fitted import Fitted, Residuals
from nearcase.decide.neighbours import Shares
from nearcase.decide.regress import regress
from nearcase.decide.scorers import measure, score
from nearcase.errors import InvalidInput
from nearcase_eval.fit_reference import Asked
from nearcase_eval.sample import Sample, sample_of

LEVEL = 0.9
"""Coverage of the interval around a number."""


def scored(images: Sequence[Asked], finding: Finding, fitted: Fitted | None) -> Sample:
    """Returns outcomes, scores and patients; an image without any neighbour has no score and is left out."""
    shares = [(each, shares_of(each, finding, fitted)) for each in images]
    rows = [(each, positive_share(finding, found)) for each, found in shares if found]
    return sample_of(
        np.array([each.value in finding.positive_values for each, _ in rows], dtype=np.bool_),
        np.array([value for _, value in rows], dtype=np.float64),
        np.array([each.patient for each, _ in rows], dtype=object),
    )


def shares_of(image: Asked, finding: Finding, fitted: Fitted | None) -> Shares:
    """Returns the share of each value, as the server would give it; the fit holds what its scorer needs."""
    return score(finding.scorer, image.priors, measure(finding, fitted, image.vector))


def positive_share(finding: Finding, shares: Shares) -> float:
    """Returns the score: the share of the positive values."""
    return min(1.0, math.fsum(share for value, share in shares if value in finding.positive_values))


def residuals(images: Sequence[Asked], finding: Finding, fitted: Fitted | None) -> Residuals:
    """Returns how far the answers are off: the ceil((n + 1) x 0.9)-th smallest error, one image of each patient.

    Split conformal: it covers the next patient with this level, on average over calibration sets (Lei 2018).

    Raises:
        InvalidInput: Too few patients for the level.
    """
    errors: dict[str, float] = {}
    for each in images:
        truth, found = number_of(each.value), regress(shares_of(each, finding, fitted), None, finding.unit)
        if truth is not None and found is not None:
            errors.setdefault(each.patient, abs(found.mean - truth))
    rank = math.ceil((len(errors) + 1) * LEVEL - 1e-9)
    if rank > len(errors):
        needed = math.ceil(LEVEL / (1.0 - LEVEL) - 1e-9)
        raise InvalidInput(f"expected {needed} patients for an interval of level {LEVEL:g}, got {len(errors)}")
    return Residuals(sorted(errors.values())[rank - 1], LEVEL, len(errors))
