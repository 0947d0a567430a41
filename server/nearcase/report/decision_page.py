"""The decision page: the ROC with the chosen point, a slider over the others, and the evidence in pictures.

As the evidence page it is one file that runs no script: the slider is a row of radio buttons, and style rules show the
panel of the one that is chosen.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from nearcase.errors import InvalidInput
from nearcase.report import decision_view, view, words
from nearcase.report.decision_view import FindingFit
from nearcase.report.roc import steps
from nearcase.report.style import style_of
from nearcase.types import Decision, DecisionResult, RefusedPoint

_PAGES = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def render_decision(result: DecisionResult, fits: dict[str, FindingFit], *, title: str, generated_at: str) -> str:
    """Returns the whole page; the same input gives the same text. Patient identifiers and UIDs are never printed.

    Args:
        result: With thumbnails, where the pictures are to be seen.
        fits: By finding; findings without a fit may be left out.
        title: Heading of the page.
        generated_at: When, in words; the page does not read the clock.

    Raises:
        InvalidInput: There is no decision to show.
    """
    if not result.decisions:
        raise InvalidInput("expected at least one decision to show, got none")
    sections = [
        _section(number, each, fits.get(each.finding, FindingFit())) for number, each in enumerate(result.decisions)
    ]
    style = style_of("evidence.css", "decision.css", rules=_rules(max(len(each.stops) for each in sections)))
    return _PAGES.get_template("decision.html.j2").render(
        title=title,
        generated_at=generated_at,
        style=style,
        notice=view.encoder_notice(result.encoder),
        query=view.query_picture(result.query_image),
        notes=result.notes,
        sections=sections,
    )


@dataclass(frozen=True, slots=True)
class _Section:
    number: int
    finding: str
    call: str
    explanation: str
    record_id: str
    figures: tuple[view.Fact, ...]
    stops: tuple[decision_view.Stop, ...]
    curve: str
    area: str
    refused: tuple[RefusedPoint, ...]
    sides: tuple[decision_view.Side, ...]

    @property
    def shown_first(self) -> int:
        """Which position the slider has when the page opens: the decision's point, else the most sensitive."""
        return next((at for at, stop in enumerate(self.stops) if stop.is_chosen), 0)


def _section(number: int, decision: Decision, fits: FindingFit) -> _Section:
    return _Section(
        number=number,
        finding=decision.finding,
        call=words.call(decision),
        explanation=decision.explanation,
        record_id=decision.record_id,
        figures=decision_view.figures(decision),
        stops=decision_view.stops(decision),
        curve=steps(fits.roc.points) if fits.roc else "",
        area=decision_view.area(fits.roc.auroc) if fits.roc and fits.roc.auroc else "",
        refused=fits.refused,
        sides=decision_view.sides(decision),
    )


def _rules(count: int) -> str:
    """Shows what belongs to the radio button that is on."""
    return "".join(
        f".stop-{at}:checked ~ .board .mark-{at} {{ visibility: visible; }}\n"
        f".stop-{at}:checked ~ .board .panel-{at} {{ display: block; }}\n"
        f".stop-{at}:checked ~ .names .name-{at} {{ font-weight: 650; text-decoration: underline; }}\n"
        f".stop-{at}:focus-visible ~ .names .name-{at} {{ outline: 2px solid var(--accent); }}\n"
        for at in range(count)
    )
