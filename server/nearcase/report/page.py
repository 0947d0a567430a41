"""The evidence page: what was searched with, what was found, and what the encoder is, in one HTML file.

The file needs no network and runs no script. A Content-Security-Policy holds it to that: only data: pictures and the
one style sheet whose hash it names.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from nearcase.errors import InvalidInput
from nearcase.report import view
from nearcase.types import Decision, SearchResult

_PAGES = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


@dataclass(frozen=True, slots=True)
class PageSearch:
    """One search on the page."""

    name: str  # what people call the query: a file name, an accession
    result: SearchResult
    decisions: tuple[Decision, ...] = ()
    notes: tuple[str, ...] = ()  # sentences shown under the query


@dataclass(frozen=True, slots=True)
class Table:
    """A small table of figures above the searches; the first column names the row."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def render_page(searches: Sequence[PageSearch], *, title: str, generated_at: str, summary: Table | None = None) -> str:
    """Returns the whole page; the same input gives the same text.

    Patient identifiers, UIDs and dates of the cases are never printed.

    Args:
        searches: In the order to show.
        title: Heading of the page.
        generated_at: When, in words; the page does not read the clock.
        summary: Figures to show first.

    Raises:
        InvalidInput: No search (a page must say which encoder it speaks of), or a table row of another length than
            the columns.
    """
    if not searches:
        raise InvalidInput("Expected at least one search to show, got none")
    if summary and any(len(row) != len(summary.columns) for row in summary.rows):
        raise InvalidInput(f"Expected table rows of {len(summary.columns)} cells, got another number")
    style = (Path(__file__).parent / "evidence.css").read_text("utf-8")
    return _PAGES.get_template("evidence.html.j2").render(
        title=title,
        generated_at=generated_at,
        summary=summary,
        style=style,
        style_hash=base64.b64encode(hashlib.sha256(style.encode()).digest()).decode("ascii"),
        notices=view.notices(search.result for search in searches),
        searches=[_section(search) for search in searches],
    )


def _section(search: PageSearch) -> dict[str, object]:
    result = search.result
    return {
        "name": search.name,
        "notes": search.notes,
        "queries": [view.query_picture(image) for image in result.query_images],
        "neighbours": [view.neighbour_picture(rank, hit) for rank, hit in enumerate(result.hits, 1)],
        "in_scope": f"{len(result.hits):,} of {result.candidate_count:,}",
        "verdicts": [view.verdict(decision) for decision in search.decisions],
    }
