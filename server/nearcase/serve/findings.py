"""What can be decided here: the declared findings, and the library's other labels, of which only votes can be shown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from nearcase.decide.finding import Finding, undeclared
from nearcase.decide.fitted import Fitted
from nearcase.errors import NotFound
from nearcase.index.filter_text import parse
from nearcase.index.filters import Filter, In
from nearcase.retrieve.library import all_of, has_label
from nearcase.retrieve.scope import UNFLAGGED

if TYPE_CHECKING:
    from nearcase.retrieve.library import Library

Declared = Mapping[str, tuple[Finding, Fitted | None]]


class Findings:
    """Findings by name, and how many cases tell their outcome; counts hold until the library changes."""

    def __init__(self, declared: Declared, library: Library) -> None:
        self._declared, self._library = declared, library
        self._snapshot = ""
        self._counts: dict[Filter, int] = {}  # by what is counted: a finding may be declared anew
        self._labels: tuple[str, ...] = ()

    async def all(self) -> Declared:
        """Returns every finding, in the order of their names."""
        await self._renew()
        told = {finding.label for finding, _ in self._declared.values()}
        others = {name: (undeclared(name), None) for name in self._labels if name not in told | set(self._declared)}
        return dict(sorted({**self._declared, **others}.items()))

    async def one(self, name: str) -> tuple[Finding, Fitted | None]:
        """Returns a finding by its name.

        Raises:
            NotFound: There is none.
        """
        found = self._declared.get(name) or (await self.all()).get(name)
        if found is None:
            message = "no finding is declared, and no case of this library has a label, of that name"
            raise NotFound(f"{message}; ListFindings lists them", reason="FINDING_NOT_FOUND", field="finding")
        return found

    def is_declared(self, name: str) -> bool:
        """Returns whether an operator named it, rather than a label of some case."""
        return name in self._declared

    async def labelled_count(self, finding: Finding) -> int:
        """Returns how many cases in the finding's scope tell its outcome."""
        await self._renew()
        where = evidence_of(finding)
        if where not in self._counts:
            snapshot = self._snapshot
            count = await self._library.count(where)
            if snapshot != self._snapshot:
                return count
            self._counts[where] = count
        return self._counts[where]

    async def _renew(self) -> None:
        snapshot = await self._library.snapshot()
        if snapshot != self._snapshot:
            labels = tuple(await self._library.labels())
            self._snapshot, self._counts, self._labels = snapshot, {}, labels


def evidence_of(finding: Finding) -> Filter:
    """Returns which cases may be evidence: without a flag, in scope, with one of the label's values that count."""
    scope = parse(finding.scope.text) if finding.scope.text else None
    values = (*finding.positive_values, *finding.negative_values)
    told = In("labels", tuple(f"{finding.label}={value}" for value in values)) if finding.negative_values else None
    return all_of(scope, told or has_label(finding.label), UNFLAGGED) or UNFLAGGED
