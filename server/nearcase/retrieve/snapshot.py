"""The name of a library's state: equal names, equal cases, whatever the order in which they came.

Each case is hashed, and the hashes are added modulo 2**256: adding or removing a case changes the sum by its hash
alone, so that the name follows every change without the others being read again. Thumbnails, the time of adding and the
history of labels are left out: no decision rests on them. Embeddings are left out too, so that the same cases have one
name in every library and under every encoder: whether a case was replaced is told by the time of its last write, see
`cases.stamped`, and by `Library.state`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable

from nearcase.types import Case

_MODULUS = 2**256


class Snapshot:
    """How many cases there are, and the sum of their hashes."""

    def __init__(self, cases: Iterable[Case] = ()) -> None:
        self._count, self._sum = 0, 0
        for case in cases:
            self.add(case)

    def add(self, case: Case) -> None:
        """Takes a case in."""
        self._count, self._sum = self._count + 1, (self._sum + _hash(case)) % _MODULUS

    def remove(self, case: Case) -> None:
        """Takes a case out that is in."""
        self._count, self._sum = self._count - 1, (self._sum - _hash(case)) % _MODULUS

    @property
    def name(self) -> str:
        """The number of cases and 32 hexadecimal digits."""
        digest = hashlib.sha256(f"{self._count}:{self._sum:064x}".encode()).hexdigest()
        return f"{self._count}-{digest[:32]}"


def _hash(case: Case) -> int:
    facts = dataclasses.asdict(case.facts)
    stated = {key: float(value) if isinstance(value, int | float) else value for key, value in facts.items()}
    body = [
        case.case_id,
        stated,
        dict(case.labels),
        case.source,
        list(case.given),
        case.frame_number,
        case.frame_count,
        case.content_sha256,
        *([sorted(case.flags)] if case.flags else []),  # names that were given before there were flags stay true
    ]
    return int.from_bytes(hashlib.sha256(json.dumps(body, sort_keys=True).encode()).digest(), "big")
