"""A page of tables: one HTML file that needs no network and runs no script, as the evidence page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from nearcase.report.page import Table
from nearcase.report.style import style_of

_PAGES = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def render_tables(title: str, sentences: Sequence[str], tables: Sequence[Table], *, generated_at: str) -> str:
    """Returns the whole page; the same input gives the same text.

    Args:
        title: Its heading.
        sentences: What to know first.
        tables: In the order to show.
        generated_at: When, in words; the page does not read the clock.
    """
    return _PAGES.get_template("tables.html.j2").render(
        title=title,
        sentences=sentences,
        tables=tables,
        generated_at=generated_at,
        style=style_of("evidence.css", "decision.css"),
    )
