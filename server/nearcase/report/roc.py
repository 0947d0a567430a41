"""A ROC curve as the coordinates of a drawing: 100 wide and high, false positives to the right, sensitivity upward."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nearcase.types import OperatingPoint, RocPoint


@dataclass(frozen=True, slots=True)
class Cross:
    """An operating point, and its intervals as two lines that cross in it."""

    x: str
    y: str
    left: str  # 1 - the upper end of the specificity
    right: str
    top: str  # the upper end of the sensitivity
    bottom: str


def steps(points: Sequence[RocPoint]) -> str:
    """Returns the curve as the points of a polyline, from nobody called to everyone."""
    corners = [(0.0, 0.0), *((each.false_positive_rate, each.true_positive_rate) for each in points), (1.0, 1.0)]
    shown = [f"{_across(x)},{_down(y)}" for x, y in corners]
    return " ".join(dict.fromkeys(shown))


def cross(point: OperatingPoint) -> Cross:
    """Returns where an operating point lies."""
    sensitivity, specificity = point.sensitivity, point.specificity
    return Cross(
        x=_across(1.0 - specificity.value),
        y=_down(sensitivity.value),
        left=_across(1.0 - specificity.high),
        right=_across(1.0 - specificity.low),
        top=_down(sensitivity.high),
        bottom=_down(sensitivity.low),
    )


def _across(share: float) -> str:
    return f"{100.0 * share:.2f}"


def _down(share: float) -> str:
    return f"{100.0 - 100.0 * share:.2f}"
