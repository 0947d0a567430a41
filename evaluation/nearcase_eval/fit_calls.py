"""On how many held-out images a call would be made: on the others the finding abstains, whatever their score."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nearcase.decide.abstain import abstention
from nearcase.decide.basis import Basis
from nearcase.decide.decision import limits_of
from nearcase.decide.finding import Finding
from nearcase.decide.fitted import Fitted
from nearcase.decide.groups import DIGITS, groups_of
from nearcase.decide.operating import Choice, Selected, select
from nearcase.decide.rate import Rate
from nearcase_eval.fit_reference import Asked


def called_of(images: Sequence[Asked], finding: Finding, fitted: Fitted) -> Rate | None:
    """Returns the share of images with a call at the default point, each patient weighing once.

    The server's own rules are asked, of a library as it is at the fit. None where the default point was not fitted.
    """
    if finding.default_operating_point not in fitted.point_names:
        return None
    selected = select(fitted, Choice(finding.default_operating_point))
    calls: dict[str, list[bool]] = {}
    for each in images:
        calls.setdefault(each.patient, []).append(abstention(_basis(each, finding, fitted, selected)) is None)
    return Rate(round(float(np.mean([np.mean(own) for own in calls.values()])), DIGITS), len(calls))


def _basis(image: Asked, finding: Finding, fitted: Fitted, selected: Selected) -> Basis:
    points = [each for each in (selected.point, selected.rule_out) if each is not None]
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
        groups=groups_of(image.facts, fitted.groups, finding.floors.groups, points, fitted.gap),
    )
