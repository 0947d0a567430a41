"""On which held-out images a call would be made, and how right the calls are: on the others the finding abstains.

The server's own rules are asked, of a library as it is at the fit. What they say depends on the operating point in one
way alone: a group of people may be validated at one point and not at another. Groups were chosen on the calibration
patients, so that the rates here are no better than new patients will have.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from nearcase.decide.abstain import abstention
from nearcase.decide.basis import Basis
from nearcase.decide.decision import limits_of
from nearcase.decide.finding import Finding
from nearcase.decide.fitted import Fitted
from nearcase.decide.groups import DIGITS, groups_of
from nearcase.decide.operating import Choice, Selected, at_place, select
from nearcase.decide.point import FittedPoint
from nearcase.decide.rate import Rate
from nearcase.types import CaseFacts
from nearcase_eval.fit_points import rates_among
from nearcase_eval.fit_reference import Asked
from nearcase_eval.sample import Bools, Ints, Sample


def with_calls(images: Sequence[Asked], test: Sample, finding: Finding, fitted: Fitted) -> Fitted:
    """Returns the fit with the share of images that get a call, and at every point the rates among those.

    In them each patient counts once too, by the share of their images that have a call; Wilson's interval is of as many
    patients.

    Args:
        images: Held out, in the order of the sample.
        test: Their outcomes, scores and patients.
        finding: What is decided.
        fitted: With points, curve and groups.
    """
    calls = _Calls.of(images, test, finding, fitted)
    rates = calls.rates([*fitted.points, *(at_place(fitted, each) for each in fitted.curve)])
    points, curve = rates[: len(fitted.points)], rates[len(fitted.points) :]
    return replace(
        fitted,
        called=calls.share(finding.default_operating_point),
        points=tuple(
            replace(each, called_sensitivity=one, called_specificity=other)
            for each, (one, other) in zip(fitted.points, points, strict=True)
        ),
        curve=tuple(
            replace(each, called_sensitivity=one, called_specificity=other)
            for each, (one, other) in zip(fitted.curve, curve, strict=True)
        ),
    )


@dataclass(frozen=True, slots=True)
class _Calls:
    """Which images get a call."""

    test: Sample
    finding: Finding
    fitted: Fitted
    familiar: Bools  # (N,) nothing but their group could keep them from a call
    kinds: tuple[CaseFacts, ...]  # somebody of each combination of groups
    kind: Ints  # (N,) of each image

    @classmethod
    def of(cls, images: Sequence[Asked], test: Sample, finding: Finding, fitted: Fitted) -> _Calls:
        if len(images) != test.n:
            raise AssertionError("an image that was asked has neighbours, and so a score")
        anywhere = Selected(at_place(fitted, fitted.curve[0]))
        familiar = [abstention(_basis(each, finding, fitted, anywhere)) is None for each in images]
        places: dict[tuple[str, ...], int] = {}
        kinds: list[CaseFacts] = []
        codes: list[int] = []
        for each in images:
            named = tuple(group.name for group in groups_of(each.facts, fitted.groups, finding.floors.groups))
            if named not in places:
                places[named] = len(kinds)
                kinds.append(each.facts)
            codes.append(places[named])
        return cls(test, finding, fitted, np.asarray(familiar), tuple(kinds), np.asarray(codes, dtype=np.int64))

    def rates(self, points: Sequence[FittedPoint]) -> list[tuple[Rate | None, Rate | None]]:
        """Returns (sensitivity, specificity) at each point among the images with a call there."""
        alike: dict[tuple[bool, ...], list[int]] = {}
        for at, point in enumerate(points):
            alike.setdefault(self._validated([point]), []).append(at)
        found: dict[int, tuple[Rate | None, Rate | None]] = {}
        for validated, places in alike.items():
            thresholds = np.array([points[at].threshold for at in places])
            found |= zip(places, rates_among(self.test, self._called(validated), thresholds), strict=True)
        return [found[at] for at in range(len(points))]

    def share(self, name: str) -> Rate | None:
        """Returns the share of images with a call at a point or pair, each patient weighing once; None without it."""
        if name not in self.fitted.point_names:
            return None
        selected = select(self.fitted, Choice(name))
        points = [each for each in (selected.point, selected.rule_out) if each is not None]
        called = self._called(self._validated(points))
        images = np.bincount(self.test.patient)
        own = np.bincount(self.test.patient, weights=called.astype(np.float64))[images > 0] / images[images > 0]
        return Rate(round(float(np.mean(own)), DIGITS), int(own.size))

    def _called(self, validated: tuple[bool, ...]) -> Bools:
        found: Bools = self.familiar & np.asarray(validated)[self.kind]
        return found

    def _validated(self, points: Sequence[FittedPoint]) -> tuple[bool, ...]:
        """Of each kind of people, whether a call is made for them."""
        required, fitted = self.finding.floors.groups, self.fitted
        found = (groups_of(each, fitted.groups, required, points, fitted.gap, fitted.curve) for each in self.kinds)
        return tuple(all(group.is_validated for group in groups) for groups in found)


def _basis(image: Asked, finding: Finding, fitted: Fitted, selected: Selected) -> Basis:
    """Without groups: those are asked at each point."""
    return Basis(
        finding=finding,
        priors=image.priors,
        encoder=fitted.encoder,
        library=fitted.library,
        kept=None,
        labelled_count=fitted.library.labelled_count,
        is_exact=True,
        is_in_scope=finding.scope.takes(image.facts),
        is_narrowed=False,
        selected=selected,
        limits=limits_of(fitted, image.vector),
    )
