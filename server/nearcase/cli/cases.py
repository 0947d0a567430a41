"""A case as JSON for machines."""

from __future__ import annotations

import dataclasses

from nearcase.types import Case


def case_json(case: Case) -> dict[str, object]:
    """Returns the case without its picture; flags and the history of its labels are in it."""
    return {key: value for key, value in dataclasses.asdict(case).items() if key != "thumbnail_jpeg"}
