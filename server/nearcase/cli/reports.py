"""Where a page is written: looked at before anything is asked, so that no answer is lost for want of a folder."""

from __future__ import annotations

import os
from pathlib import Path

from nearcase.errors import InvalidInput


def check_report(report: Path | None) -> None:
    """Refuses a page that could not be written.

    Raises:
        InvalidInput: Its folder is not there, or may not be written to.
    """
    if report is None:
        return
    folder = report.absolute().parent
    if not folder.is_dir():
        raise InvalidInput("expected --report in a folder that is there, got another")
    if not os.access(report if report.exists() else folder, os.W_OK):
        raise InvalidInput("expected --report where this user may write, got another place")
