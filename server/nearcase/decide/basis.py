"""All that a decision rests on, in plain values: from this alone the same decision is made on any day.

There is no patient data in it beyond the ids and labels of the prior cases: the query's age and sex are groups, and its
embedding, which could lead back to a person, is only what the scorers and the distance made of it.
"""

from __future__ import annotations

from dataclasses import dataclass

from nearcase.decide.calibrate import Calibration
from nearcase.decide.finding import Finding
from nearcase.decide.fitted import Library, Residuals, Values
from nearcase.decide.groups import QueryGroup
from nearcase.decide.neighbours import Prior
from nearcase.decide.operating import Selected
from nearcase.decide.scorers import Measured


@dataclass(frozen=True, slots=True)
class Limits:
    """What the query is compared with before a call: the fitted limits, and its own distance."""

    nearest: float | None = None  # least cosine of the nearest case
    mean: float | None = None  # least mean cosine of the K nearest
    farthest: float | None = None  # largest distance from the library's embeddings, in standard deviations
    distance: float | None = None  # the query's


@dataclass(frozen=True, slots=True)
class Fit:
    """What of the fit takes part in the decision."""

    encoder: str  # that it was made with
    library: Library  # that it was made on
    changed: tuple[str, ...]  # parts of the finding's definition that differ from the fitted one
    calibration: Calibration | None = None
    residuals: Residuals | None = None


@dataclass(frozen=True, slots=True)
class Basis:
    """What a decision rests on."""

    finding: Finding
    priors: tuple[Prior, ...]  # the K nearest labelled cases, nearest first
    encoder: str  # identity of the encoder that made the embeddings
    library: Library  # that was asked
    kept: Values | None  # its labelled cases that are as they were at the fit; None where that was not asked
    labelled_count: int | None  # labelled cases that could have been found; None where that is not known
    is_exact: bool  # False where an approximate index may have missed a nearer case
    is_in_scope: bool  # the query is of the kind that the finding is for
    is_narrowed: bool  # the caller's own filter took away cases that the fit had
    measured: tuple[Measured, ...] = ()
    fit: Fit | None = None
    selected: Selected | None = None
    refusal: str = ""  # why the asked point can not be given, one sentence
    prevalence: float | None = None
    limits: Limits = Limits()
    groups: tuple[QueryGroup, ...] = ()
    image_count: int = 1  # images of the query, whose mean embedding the priors are near to
