"""The figures of the page as inline SVG: no script, no colour without a second sign, every figure with words for it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence

from markupsafe import Markup, escape

from nearcase_eval.audit.report import CurvePoint, Overall, Point
from nearcase_eval.audit.wording import number, percent, value

WIDTH, HEIGHT = 344.0, 312.0
LEFT, RIGHT, TOP, BOTTOM = 54.0, 332.0, 12.0, 266.0

Pair = tuple[float, float]


def roc(overall: Overall, points: Sequence[Point]) -> Markup | None:
    """Returns the ROC curve with its pointwise interval and the operating points; None with one class only."""
    if not overall.curve:
        return None
    plot = _Plot("False-positive rate (1 − specificity)", "Sensitivity", 1.0, 1.0)
    curve = [(each.false_positive_rate, each.sensitivity) for each in overall.curve]
    marks = [mark for point in points for mark in _mark(plot, point)]
    said = f"ROC curve of {overall.finding}: AUROC {value(overall.auroc)}."
    band = [_band(plot, overall.curve), plot.path([(0.0, 0.0), (1.0, 1.0)], "chance")]
    return plot.figure([*band, plot.path(curve, "line"), *marks], said)


def precision_recall(overall: Overall) -> Markup | None:
    """Returns precision against recall with the prevalence as a line; None with one class only."""
    curve = [(each.sensitivity, each.precision) for each in overall.curve if each.precision is not None]
    if not curve or overall.prevalence.value is None:
        return None
    plot = _Plot("Recall (sensitivity)", "Precision (PPV)", 1.0, 1.0)
    level = overall.prevalence.value
    said = f"Precision-recall curve of {overall.finding}: AUPRC {value(overall.auprc)}, prevalence {percent(level)}."
    steps = [pair for before, after in itertools.pairwise(curve) for pair in ((before[0], after[1]), after)]
    drawn = [
        plot.path([(0.0, level), (1.0, level)], "chance"),
        plot.path([(0.0, curve[0][1]), curve[0], *steps], "line"),
    ]
    return plot.figure(drawn, said)


def reliability(overall: Overall) -> Markup | None:
    """Returns the calibration curve in bins of equal counts; None when scores are no probabilities."""
    if overall.calibration is None or not overall.calibration.bins:
        return None
    bins = overall.calibration.bins
    ends = [each.observed.high or each.observed.value or 0.0 for each in bins]
    top = _nice(max([*ends, *(each.predicted for each in bins)]))
    plot = _Plot("Predicted probability", "Observed share", top, top)
    drawn = [plot.path([(0.0, 0.0), (top, top)], "chance")]
    for each in bins:
        if each.observed.value is None:
            continue
        if each.observed.low is not None and each.observed.high is not None:
            drawn.append(plot.path([(each.predicted, each.observed.low), (each.predicted, each.observed.high)], "bar"))
        drawn.append(plot.dot(each.predicted, each.observed.value, "dot"))
    found = overall.calibration
    said = f"Calibration of {overall.finding}: slope {value(found.slope)}, in the large {value(found.in_the_large)}."
    return plot.figure(drawn, said)


def decision_curve(overall: Overall) -> Markup | None:
    """Returns net benefit against threshold probability, beside calling all and calling none."""
    found = [each for each in overall.benefit if each.model.value is not None and each.treat_all is not None]
    if not found:
        return None
    step = _nice(max(max(each.model.value or 0.0, each.treat_all or 0.0) for each in found) / 3.0)
    plot = _Plot("Threshold probability", "Net benefit", 1.0, 3.0 * step, low=-step)
    # Below the lowest tick a line says no more than "harmful": it ends there.
    model = [(each.threshold, each.model.value or 0.0) for each in found if (each.model.value or 0.0) >= plot.low]
    everyone = [(each.threshold, each.treat_all or 0.0) for each in found if (each.treat_all or 0.0) >= plot.low]
    drawn = [plot.path([(0.0, 0.0), (1.0, 0.0)], "chance"), plot.path(everyone, "other"), plot.path(model, "line")]
    best = max((pair[1] for pair in model), default=None)
    said = f"Decision curve of {overall.finding}: best net benefit {number(best, 4)}."
    return plot.figure(drawn, said)


class _Plot:
    """Axes and the way from numbers to places on them."""

    def __init__(self, across: str, up: str, right: float, top: float, low: float = 0.0) -> None:
        self.across, self.up, self.right, self.top, self.low = across, up, right, top, low

    def x(self, value: float) -> float:
        return LEFT + (RIGHT - LEFT) * value / self.right

    def y(self, value: float) -> float:
        return BOTTOM - (BOTTOM - TOP) * (value - self.low) / (self.top - self.low)

    def path(self, pairs: Sequence[Pair], kind: str) -> Markup:
        places = " ".join(f"{self.x(a):.1f},{self.y(b):.1f}" for a, b in pairs)
        return Markup('<polyline class="{}" points="{}"/>').format(kind, places)

    def dot(self, across: float, up: float, kind: str) -> Markup:
        return Markup('<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="4"/>').format(kind, self.x(across), self.y(up))

    def figure(self, drawn: Iterable[Markup], said: str) -> Markup:
        head = Markup('<svg class="plot" viewBox="0 0 {:g} {:g}" role="img" aria-label="{}">').format(
            WIDTH, HEIGHT, said
        )
        return head + self._axes() + Markup("").join(drawn) + Markup("</svg>")

    def _axes(self) -> Markup:
        parts = [_AXIS.format(x=(LEFT + RIGHT) / 2.0, y=HEIGHT - 7.0, turn=0, label=self.across)]
        parts.append(_AXIS.format(x=10.0, y=(TOP + BOTTOM) / 2.0, turn=-90, label=self.up))
        for step in range(5):
            x, y = self.right * step / 4.0, self.low + (self.top - self.low) * step / 4.0
            parts.append(_GRID.format(left=LEFT, right=RIGHT, y=self.y(y)))
            parts.append(_TICK.format(x=LEFT - 6.0, y=self.y(y) + 4.0, anchor="end", label=_tick(y)))
            parts.append(_TICK.format(x=self.x(x), y=BOTTOM + 18.0, anchor="middle", label=_tick(x)))
        return Markup("").join(parts)


_AXIS = Markup(
    '<text class="axis" transform="translate({x:g} {y:g}) rotate({turn})" text-anchor="middle">{label}</text>'
)
_GRID = Markup('<line class="grid" x1="{left:g}" x2="{right:g}" y1="{y:.1f}" y2="{y:.1f}"/>')
_TICK = Markup('<text class="tick" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{label}</text>')


def _band(plot: _Plot, curve: Sequence[CurvePoint]) -> Markup:
    known = [each for each in curve if each.sensitivity_low is not None and each.sensitivity_high is not None]
    up = [(each.false_positive_rate, each.sensitivity_high or 0.0) for each in known]
    back = [(each.false_positive_rate, each.sensitivity_low or 0.0) for each in reversed(known)]
    places = " ".join(f"{plot.x(a):.1f},{plot.y(b):.1f}" for a, b in [*up, *back])
    return Markup('<polygon class="band" points="{}"/>').format(places)


def _mark(plot: _Plot, point: Point) -> list[Markup]:
    """An operating point as a diamond, with its intervals as a cross."""
    sensitivity, specificity = point.sensitivity, point.specificity
    if sensitivity is None or specificity is None or sensitivity.value is None or specificity.value is None:
        return []
    x, y = 1.0 - specificity.value, sensitivity.value
    drawn = []
    if sensitivity.low is not None and sensitivity.high is not None:
        drawn.append(plot.path([(x, sensitivity.low), (x, sensitivity.high)], "cross"))
    if specificity.low is not None and specificity.high is not None:
        drawn.append(plot.path([(1.0 - specificity.high, y), (1.0 - specificity.low, y)], "cross"))
    a, b = plot.x(x), plot.y(y)
    places = f"{a:.1f},{b - 6:.1f} {a + 6:.1f},{b:.1f} {a:.1f},{b + 6:.1f} {a - 6:.1f},{b:.1f}"
    title = f"{point.rule}: sensitivity {percent(y)}, specificity {percent(specificity.value)}"
    drawn.append(Markup('<polygon class="point" points="{}"><title>{}</title></polygon>').format(places, escape(title)))
    return drawn


def _nice(top: float) -> float:
    """The next of 1, 2, 2.5, 4, 5 and 8 times a power of ten, at most 1 for shares."""
    if top <= 0.0:
        return 1.0
    scale = 10.0 ** math.floor(math.log10(top))
    return min(1.0, next(step * scale for step in (1.0, 2.0, 2.5, 4.0, 5.0, 8.0, 10.0) if step * scale >= top * 0.999))


def _tick(value: float) -> str:
    return f"{value:.3g}".replace("-", "−") if abs(value) > 1e-12 else "0"
