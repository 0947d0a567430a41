"""Whether the package is here that reads and writes Parquet; the base install does without it."""

from __future__ import annotations

from importlib.util import find_spec

from nearcase.errors import Unready


def require_pyarrow() -> None:
    """Refuses in one line, before any work, where pyarrow is absent.

    Raises:
        Unready: It is; the message names the extra that brings it.
    """
    if find_spec("pyarrow") is None:
        raise Unready("exports are Parquet files: pip install 'nearcase[parquet]'", reason="EXTRA_ABSENT")
