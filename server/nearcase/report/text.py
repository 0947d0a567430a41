"""The evidence as text in a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.markup import escape
from rich.table import Table

from nearcase.report import words
from nearcase.types import CaseFacts, EncoderSummary, Hit

NOT_STATED = "–"
COLUMNS = ("#", "similarity", "modality", "body part", "age", "sex", "outcome", "where from")


def encoder_line(encoder: EncoderSummary) -> str:
    """Returns the sentence that stands beside every result."""
    return f"Encoder: {encoder.name} {encoder.version}. {encoder.statement}"


def neighbour_table(hits: Sequence[Hit]) -> Table:
    """Returns one row for each neighbour; what a series was ranked by, and found by, where there is such a thing."""
    is_ranked = any(hit.score is not None for hit in hits)
    is_found = any(hit.matched_count > 1 for hit in hits)
    more = (*(("ranked by",) if is_ranked else ()), *(("found by",) if is_found else ()))
    table = Table(*COLUMNS[:2], *more, *COLUMNS[2:], box=None, pad_edge=False)
    for rank, hit in enumerate(hits, 1):
        cells = [str(rank), f"{hit.similarity:.3f}"]
        cells += ["" if hit.score is None else f"{hit.score:.4g}"] if is_ranked else []
        cells += [words.images(hit.matched_count)] if is_found else []
        table.add_row(*cells, *case_cells(hit.case.facts, hit.case.labels, hit.case.source))
    return table


def case_cells(facts: CaseFacts, labels: Mapping[str, str], source: str) -> tuple[str, ...]:
    """Returns modality, body part, age, sex, outcome and source as cells that rich shows as they are."""
    outcome = ", ".join(f"{name}={value}" for name, value in sorted(labels.items()))
    cells = (facts.modality, facts.body_part, age_text(facts.age_years), facts.sex, outcome, source)
    return tuple(plain(cell) for cell in cells)


def age_text(age_years: float | None) -> str:
    """Returns the age as on the page; empty where it is not stated."""
    return "" if age_years is None else words.age(age_years)


def plain(text: str) -> str:
    """Escapes rich's markup, and what one_line does: the text comes from files."""
    return escape(one_line(text)) if text else NOT_STATED


def one_line(text: str) -> str:
    """Escapes what moves a terminal, breaks a line or reverses it: controls, formats and separators of any kind."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode("ascii") for each in text)
