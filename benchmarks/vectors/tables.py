"""How the scripts about the library print, and how their tables get into docs/performance.md."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs" / "performance.md"


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table, padded, so that it reads as well in a terminal."""
    widths = [max(len(line[at]) for line in (header, *rows)) for at in range(len(header))]
    lines = [header, ["-" * width for width in widths], *rows]
    return "\n".join("| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |" for line in lines)


def verdict(is_met: bool, claim: str) -> str:
    """One line that says whether a claim holds."""
    return f"{'PASS' if is_met else 'FAIL'}  {claim}"


def put(section: str, text: str, page: Path = DOCS) -> None:
    """Replaces what lies between a section's two marks.

    Raises:
        SystemExit: The page has no such marks.
    """
    begin, end = f"<!-- {section}: begin, written by benchmarks/{section}.py --docs -->", f"<!-- {section}: end -->"
    whole = page.read_text("utf-8")
    before, found, rest = whole.partition(begin)
    _, ended, after = rest.partition(end)
    if not found or not ended:
        raise SystemExit(f"{page.name} has no place for {section}: put in the two lines {begin} and {end}")
    page.write_text(f"{before}{begin}\n{text.strip()}\n{end}{after}", "utf-8")
