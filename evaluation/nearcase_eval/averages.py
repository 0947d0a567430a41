"""Macro and micro averages of AUROC over labels, with intervals over patients."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from nearcase.errors import InvalidInput
from nearcase_eval.auroc import auroc_of
from nearcase_eval.clustered import Area, area_of, covariance
from nearcase_eval.estimate import Estimate, Shape, from_se, not_estimable
from nearcase_eval.sample import Sample, outcomes, patient_codes, same_length, sample_of


@dataclass(frozen=True, slots=True)
class Averages:
    """AUROC over labels."""

    macro: Estimate  # the plain mean over labels that have both classes
    micro: Estimate  # all rows of all labels in one ranking: scores must mean the same for each label
    labels: tuple[str, ...]  # that count
    dropped: tuple[str, ...]  # that have one class only


def averages(
    labels: Mapping[str, tuple[ArrayLike, ArrayLike]], *, patient: ArrayLike | None = None, level: float = 0.95
) -> Averages:
    """Returns the averages over labels, each (y_true, y_score) on the same rows.

    The macro's variance is that of a mean of AUROCs which share patients (covariance summed over label pairs); the
    micro's clusters hold all labels of a patient, or of a row when no patients are given.

    Raises:
        InvalidInput: There are no labels, or the arrays do not fit.
    """
    if not labels:
        raise InvalidInput("expected at least one label", field="labels")
    n = outcomes(next(iter(labels.values()))[0]).size
    for truth, _ in labels.values():
        same_length(n, outcomes(truth).size, "y_true")
    codes, patients = patient_codes(patient, n)
    samples = {name: _coded(truth, score, codes, patients) for name, (truth, score) in labels.items()}
    areas = {name: area_of(data) for name, data in samples.items()}
    kept = {name: area for name, area in areas.items() if area is not None}
    dropped = tuple(name for name in areas if name not in kept)
    return Averages(macro_of([*kept.values()], level=level), _micro([*samples.values()], level), tuple(kept), dropped)


def macro_of(areas: Sequence[Area], *, level: float = 0.95) -> Estimate:
    """Returns the mean of areas whose patients have the same codes."""
    method = "macro AUROC, covariance over patients"
    if not areas:
        return not_estimable("no label has both classes", n=0, patients=0, method=method, level=level)
    value = math.fsum(area.value for area in areas) / len(areas)
    variance = float(np.sum(covariance(areas))) / len(areas) ** 2
    n, patients = max(area.n for area in areas), max(area.patients for area in areas)
    se = math.sqrt(variance) if variance > 0.0 else 0.0
    shape = Shape.LOGIT if 0.0 < value < 1.0 else Shape.NORMAL
    return from_se(value, se, n=n, patients=patients, method=method, level=level, shape=shape)


def _micro(samples: Sequence[Sample], level: float) -> Estimate:
    pooled = Sample(
        np.concatenate([data.truth for data in samples]),
        np.concatenate([data.score for data in samples]),
        np.concatenate([data.patient for data in samples]),
        samples[0].patients,
    )
    return dataclasses.replace(auroc_of(pooled, level=level), method="micro AUROC, Obuchowski over patients")


def _coded(truth: ArrayLike, score: ArrayLike, codes: ArrayLike, patients: int) -> Sample:
    return dataclasses.replace(sample_of(truth, score), patient=np.asarray(codes), patients=patients)
