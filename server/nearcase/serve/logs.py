"""The server's log: one line for each event, as text or JSON, without patient data.

Our own lines name nobody. Those of libraries are cut to their first line, and of every exception the type and the place
are told and never the message, which may quote what was being read.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import secrets
import traceback
from datetime import UTC, datetime
from types import TracebackType

FORMATS = ("text", "json")
_KEY = secrets.token_bytes(32)
_OURS = ("nearcase", "nearcase.")


def hashed(name: str) -> str:
    """Returns what stands for a name in the log: the same for one run of the server, and of no use after it."""
    return hmac.new(_KEY, name.encode(), hashlib.sha256).hexdigest()[:12] if name else ""


def set_up_logs(form: str) -> None:
    """Sends all lines from WARNING on, and those of nearcase from INFO on, to stderr.

    Args:
        form: One of FORMATS.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines() if form == "json" else TextLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)


class TextLines(logging.Formatter):
    """For people."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """Returns the line."""
        when = self.formatTime(record)
        return f"{when} {record.levelname} {record.name} {_said(record)}"


class JsonLines(logging.Formatter):
    """For machines: time, level, logger, message, and what the event has of its own."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns one JSON object."""
        told = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": _said(record),
        }
        return json.dumps(told | getattr(record, "fields", {}), ensure_ascii=False)


def _said(record: logging.LogRecord) -> str:
    message = record.getMessage()
    if not (record.name == _OURS[0] or record.name.startswith(_OURS[1])):
        message = message.partition("\n")[0]
    message = " ".join(message.split())
    kind, _, trace = record.exc_info or (None, None, None)
    return f"{message}: {kind.__name__} at {_place(trace)}" if kind else message


def _place(trace: TracebackType | None) -> str:
    frames = traceback.extract_tb(trace)
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "?"
