"""Writes a report in the formats that were asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from nearcase.errors import NearcaseError
from nearcase_eval.audit.report import Report


def write(report: Report, folder: Path, formats: Sequence[str]) -> tuple[Path, ...]:
    """Returns the files that were written, report.json and so on; the folder is made when it is not there.

    Raises:
        NearcaseError: The folder can not be written.
    """
    files = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in formats:
            file = folder / f"report.{name}"
            file.write_text(_renderer(name)(report), "utf-8", newline="")
            files.append(file)
    except OSError as error:
        raise NearcaseError(f"the report can not be written to {folder}: {error.strerror}") from error
    return tuple(files)


def _renderer(name: str) -> Callable[[Report], str]:
    """Imports only what is asked for: a JSON report needs no template engine."""
    if name == "html":
        from nearcase_eval.audit.as_html import to_html

        return to_html
    if name == "md":
        from nearcase_eval.audit.as_markdown import to_markdown

        return to_markdown
    if name == "csv":
        from nearcase_eval.audit.as_csv import to_csv

        return to_csv
    from nearcase_eval.audit.as_json import to_json

    return to_json
