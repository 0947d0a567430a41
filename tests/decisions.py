"""Findings, hits and fits for tests of decisions; what is fitted here is counted in the plainest way."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nearcase.decide.calibrate import Calibration
from nearcase.decide.canonical import digest, dump
from nearcase.decide.curve import CurvePoint
from nearcase.decide.decision import Asked, Context
from nearcase.decide.finding import Finding, Scorer
from nearcase.decide.fitted import FORMAT, Fitted, Library, Split
from nearcase.decide.groups import Group
from nearcase.decide.operating import Choice
from nearcase.decide.point import FittedPoint, Pair
from nearcase.decide.rate import Rate
from nearcase.types import Case, CaseFacts, Hit

Floats = NDArray[np.float64]

LIBRARY = Library("snapshot-1", 200, (("0", 120), ("1", 80)), 100.0)
MASS = Finding(
    name="mass",
    version="1",
    label="mass",
    display_name="Mass",
    positive_values=("1",),
    negative_values=("0",),
    scorer=Scorer(k=10),
    default_operating_point="middle",
)
CONTEXT = Context(
    encoder="encoder-1", library=LIBRARY, labelled_count=200, secret=bytes(32), at_s=1.5, made_by="nearcase test"
)
ASKED = Asked(CaseFacts(), image_sha256="ab" * 32)


def hits(similarities: Sequence[float], values: Sequence[str | None], label: str = "mass") -> list[Hit]:
    """Cases in the order given, with the label where a value is."""
    return [
        Hit(Case(f"case-{number:04}", CaseFacts(), {} if value is None else {label: value}), similarity)
        for number, (similarity, value) in enumerate(zip(similarities, values, strict=True))
    ]


def draws(seed: int, positives: int = 100, negatives: int = 200) -> tuple[Floats, Floats]:
    """Scores of positives and negatives that overlap, with ties; two decimals, 0 to 1."""
    rng = np.random.default_rng(seed)
    return rng.beta(4, 2, positives).round(2), rng.beta(2, 4, negatives).round(2)


def curve_of(calibration: tuple[Floats, Floats], test: tuple[Floats, Floats]) -> tuple[CurvePoint, ...]:
    """Every threshold of the calibration scores, and one that calls nothing."""
    values = np.unique(np.concatenate(calibration))[::-1]
    thresholds = [float(np.nextafter(values[0], np.inf)), *(float(value) for value in values)]
    return tuple(
        CurvePoint(
            threshold,
            int((calibration[0] >= threshold).sum()),
            int((calibration[1] >= threshold).sum()),
            Rate(float((test[0] >= threshold).mean()), test[0].size),
            Rate(float((test[1] < threshold).mean()), test[1].size),
        )
        for threshold in thresholds
    )


def point(name: str, threshold: float, test: tuple[Floats, Floats]) -> FittedPoint:
    """A fixed threshold with what it does in the test scores."""
    sensitivity = Rate(float((test[0] >= threshold).mean()), test[0].size)
    specificity = Rate(float((test[1] < threshold).mean()), test[1].size)
    return FittedPoint(name, threshold, "fixed", "", sensitivity, specificity, test[0].size, test[1].size)


def group(attribute: str, name: str, least: float | None = None, below: float | None = None, count: int = 10) -> Group:
    """A group where everybody is called right at every threshold, so many of each kind."""
    sides = (((1.0,),) * count, ((0.0,),) * count)
    return Group(attribute, name, True, 2 * count, "", least, below, *sides)


def fit(finding: Finding = MASS, seed: int = 0, positives: int = 100, **changes: object) -> Fitted:
    """A fit of the finding with points lax, middle and strict, the pair both, and the whole curve."""
    calibration, test = draws(seed, positives), draws(seed + 1)
    made = Fitted(
        finding=finding.name,
        finding_version=finding.version,
        label=finding.label,
        positive_values=finding.positive_values,
        negative_values=finding.negative_values,
        scope=finding.scope.text,
        scorer=finding.scorer,
        floors=finding.floors,
        encoder="encoder-1",
        library=LIBRARY,
        unit="image",
        splits=(
            Split("calibration", positives + 200, positives + 200, positives, 200),
            Split("test", 300, 300, 100, 200),
        ),
        calibration=Calibration("isotonic", 0.3, 0.05, (0.1, 0.5, 0.9), (0.0, 0.4, 1.0)),
        points=tuple(point(name, at, test) for name, at in (("lax", 0.2), ("middle", 0.5), ("strict", 0.8))),
        pairs=(Pair("both", "strict", "lax"),),
        curve=curve_of(calibration, test),
        made_by="tests",
    )
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


def resealed(body: object) -> bytes:
    """The file of a fit that was edited and sealed again: its hash is right."""
    return dump({"format": FORMAT, "sha256": digest(body), "body": body})


CHOICES = (
    *(Choice(name) for name in ("lax", "middle", "strict")),
    *(Choice(target_sensitivity=target) for target in (0.5, 0.8, 0.9, 0.95)),
    *(Choice(target_specificity=target) for target in (0.5, 0.8, 0.9, 0.95)),
    *(Choice(cost_ratio=ratio) for ratio in (1.0, 10.0, 100.0)),
)
