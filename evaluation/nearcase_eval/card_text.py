"""A model card as Markdown for people and as JSON for machines."""

from __future__ import annotations

import json
from collections.abc import Iterator

from nearcase_eval.audit.as_json import plain
from nearcase_eval.measured import Measurement
from nearcase_eval.model_card import NOT_MEASURED, NOT_PROVIDED, Fact, ModelCard, Section


def to_json(card: ModelCard) -> str:
    """Returns the card with unrounded numbers; what was not measured or not provided is listed or null."""
    return json.dumps(plain(card), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def to_markdown(card: ModelCard) -> str:
    """Returns the card with numbers rounded to three digits, each with its interval and counts."""
    lines = [f"# Model card: {_cell(card.name)}", ""]
    for section in card.sections:
        lines += [f"## {section.title}", "", *_section(section)]
    return "\n".join(lines).rstrip() + "\n"


def _section(section: Section) -> Iterator[str]:
    yield from (f"- {_cell(fact.name)}: {_fact(fact)}" for fact in section.facts)
    yield from (f"- {_cell(what)}: {NOT_MEASURED}" for what in section.not_measured)
    if section.measurements:
        yield ""
        yield "| finding | metric | group | value (95 % interval) | images | patients | remark | from |"
        yield "| --- | --- | --- | --- | --- | --- | --- | --- |"
        yield from map(_row, section.measurements)
    yield ""


def _fact(fact: Fact) -> str:
    if fact.value is None:
        return NOT_PROVIDED
    if isinstance(fact.value, bool):
        return "yes" if fact.value else "no"
    return f"{fact.value:,}" if isinstance(fact.value, int) else _cell(fact.value)


def _row(found: Measurement) -> str:
    counted = ["–" if number is None else f"{number:,}" for number in (found.n, found.patients)]
    cells = (found.finding, found.metric, found.group or "all", _value(found), *counted, found.remark, found.file)
    return f"| {' | '.join(map(_cell, cells))} |"


def _value(found: Measurement) -> str:
    if found.value is None:
        return "no number"
    if found.low is None or found.high is None:
        return f"{found.value:.3f}"
    return f"{found.value:.3f} ({found.low:.3f} to {found.high:.3f})"


def _cell(text: str) -> str:
    """Names come from tables of other people: they may not break the page."""
    flat = " ".join(text.split())
    return flat.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("`", "\\`")
