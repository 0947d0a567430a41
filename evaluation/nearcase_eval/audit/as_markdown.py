"""The report as Markdown: the summary, then the eleven sections as tables."""

from __future__ import annotations

from collections.abc import Iterator

from nearcase_eval.audit.layout import Section, Table
from nearcase_eval.audit.report import Report
from nearcase_eval.audit.sections import sections_of
from nearcase_eval.audit.wording import VERDICTS

MARKUP = ("\\", "|", "<", "`", "*", "_", "[", "]", "#")


def to_markdown(report: Report) -> str:
    """Returns the report; the JSON beside it holds every number unrounded."""
    return "\n".join(_lines(report)).rstrip("\n") + "\n"


def _lines(report: Report) -> Iterator[str]:
    summary = report.summary
    yield from (f"# {_safe(report.title)}", "", f"**{VERDICTS[summary.verdict]}.** {_safe(summary.sentence)}", "")
    yield from (f"- {_safe(line)}" for line in summary.tested)
    yield ""
    yield from (f"- {VERDICTS[each.verdict]}: {_safe(each.sentence)}" for each in summary.judged)
    for section in sections_of(report):
        yield from _section(section)


def _section(section: Section) -> Iterator[str]:
    yield from ("", f"## {section.number}. {section.title}", "")
    for table in section.tables:
        if table.rows:
            yield from _table(table)
    yield from (f"- {_safe(note)}" for note in section.notes)


def _table(table: Table) -> Iterator[str]:
    yield from (f"### {_safe(table.caption)}", "")
    yield f"| {' | '.join(map(_safe, table.columns))} |"
    yield f"|{' --- |' * len(table.columns)}"
    yield from (f"| {' | '.join(map(_safe, row))} |" for row in table.rows)
    yield from ("", *([_safe(table.note), ""] if table.note else []))


def _safe(text: str) -> str:
    """Names come from the table: they must not break a row, nor become markup."""
    found = " ".join(text.split())
    for sign in MARKUP:
        found = found.replace(sign, f"\\{sign}")
    return found
