"""Where a fit does not reach: images unlike the library, and groups of people that it was not validated in."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nearcase.decide.array import Array
from nearcase.decide.familiar import Ellipsoid, Familiarity
from nearcase.decide.finding import Finding
from nearcase.decide.fitted import Fitted
from nearcase.decide.groups import FEWEST_PATIENTS, Group, Patients
from nearcase_eval.fit_area import patient_auroc
from nearcase_eval.fit_reference import Asked
from nearcase_eval.fit_scores import scored
from nearcase_eval.sample import Bools, Sample

SHARE = 0.01
"""Of the library's own images, this share breaks each limit."""

ELLIPSOID_IMAGES = 200
"""Fewer images tell too little of how embeddings vary."""

MOST_AXES = 64

AGES = ((0.0, 18.0), (18.0, 40.0), (40.0, 65.0), (65.0, None))
"""Children, and three groups of adults; in years, at least and below."""


def familiarity(others: Sequence[Asked], test: Sequence[Asked]) -> Familiarity | None:
    """Returns limits of similarity over all images, and of distance: shaped by the others, set on the held-out ones.

    None for so few images that the share of them is less than one.
    """
    if len(others) + len(test) < 1.0 / SHARE:
        return None
    similar = [[prior.similarity for prior in each.priors] for each in (*others, *test) if each.priors]
    return Familiarity(
        share=SHARE,
        nearest=float(np.quantile([max(each) for each in similar], SHARE)),
        mean=float(np.quantile([np.mean(each) for each in similar], SHARE)),
        ellipsoid=_ellipsoid(others, test) if len(others) >= ELLIPSOID_IMAGES else None,
    )


def _ellipsoid(others: Sequence[Asked], test: Sequence[Asked]) -> Ellipsoid:
    vectors = np.stack([each.vector for each in others]).astype(np.float64)
    mean = vectors.mean(axis=0)
    _, lengths, axes = np.linalg.svd(vectors - mean, full_matrices=False)
    variances = lengths**2 / (len(others) - 1)
    rank = min(MOST_AXES, len(others) // 10, vectors.shape[1] - 1)
    rest = float(variances[rank:].sum()) / (vectors.shape[1] - rank)
    floor = max(float(variances[0]) * 1e-9, 1e-12)  # vectors that all lie in a plane
    shape = Ellipsoid(
        Array.of(mean), Array.of(axes[:rank]), Array.of(np.maximum(variances[:rank], floor)), max(rest, floor), np.inf
    )
    limit = float(np.quantile([shape.distance(each.vector) for each in test], 1.0 - SHARE))
    return Ellipsoid(shape.mean, shape.axes, shape.variances, shape.residual_variance, limit)


def validated_groups(
    images: Sequence[Asked], calibration: Sequence[Asked], finding: Finding, fitted: Fitted, by: Sequence[str]
) -> tuple[Group, ...]:
    """Returns each group that any image is of: validated where enough calibration patients rank nearly as all do.

    Enough is ten patients with the finding and ten without; nearly is an AUROC at most the fit's `gap` below that of
    all, each patient weighing once in both. Such a group has its scores too, which say at each operating point whether
    its rates are near enough. No held-out patient is asked: groups that were dropped for their held-out rates would
    leave those whose rates are high by chance, and rates among called images would be told of these.
    """
    overall = patient_auroc(scored(calibration, finding, fitted)).value
    groups = []
    for attribute, name, least, below in _named(images, by):
        members = [each for each in calibration if _is_in(each, attribute, name, least, below)]
        patients = len({each.patient for each in members})
        data = scored(members, finding, fitted) if members else None
        reason = _why_not(data, overall, fitted.gap) if data else "no calibration patient is in it"
        kept = (_by_patient(data, data.truth), _by_patient(data, ~data.truth)) if data and not reason else ((), ())
        groups.append(Group(attribute, name, not reason, patients, reason, least, below, *kept))
    return tuple(groups)


def _by_patient(data: Sample, among: Bools) -> Patients:
    """The scores of each patient's images, in an order that tells nothing of who they are."""
    order = np.argsort(data.patient[among], kind="stable")
    _, starts = np.unique(data.patient[among][order], return_index=True)
    return tuple(sorted(tuple(sorted(part.tolist())) for part in np.split(data.score[among][order], starts[1:])))


def _named(images: Sequence[Asked], by: Sequence[str]) -> list[tuple[str, str, float | None, float | None]]:
    found: list[tuple[str, str, float | None, float | None]] = []
    if "sex" in by:
        found += [("sex", sex, None, None) for sex in sorted({each.facts.sex for each in images} - {""})]
    if "age" in by:
        for least, below in AGES:
            name = f"{least:g}-{below:g}" if below is not None else f"{least:g}+"
            if any(_is_in(each, "age", name, least, below) for each in images):
                found.append(("age", name, least, below))
    return found


def _is_in(image: Asked, attribute: str, name: str, least: float | None, below: float | None) -> bool:
    if attribute == "sex":
        return image.facts.sex == name
    years = image.facts.age_years
    return years is not None and (least is None or years >= least) and (below is None or years < below)


def _why_not(data: Sample, overall: float | None, gap: float) -> str:
    positives = data.patients_among(data.truth)
    negatives = data.patients_among(~data.truth)
    if min(positives, negatives) < FEWEST_PATIENTS:
        found = f"{positives} calibration patients with the finding and {negatives} without"
        return f"{found}, {FEWEST_PATIENTS} are needed"
    area = patient_auroc(data).value
    if area is None or overall is None or area < overall - gap:
        return f"its AUROC is more than {gap:g} below that of all"
    return ""
