"""What can be decided here: the declared findings, and the library's other labels, of which only votes can be shown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from nearcase.decide.finding import Finding, undeclared
from nearcase.decide.fitted import Fitted, Values
from nearcase.decide.fitted import Library as FittedLibrary
from nearcase.errors import NotFound
from nearcase.index.filter_text import parse
from nearcase.index.filters import And, Equals, Filter, In, Not, Range
from nearcase.retrieve.cases import CHANGED
from nearcase.retrieve.library import all_of
from nearcase.retrieve.scope import UNFLAGGED, has_label

if TYPE_CHECKING:
    from nearcase.retrieve.library import Library

OTHER = ""
"""Stands for the values that no case had at the fit; no label's value is empty."""

Declared = Mapping[str, tuple[Finding, Fitted | None]]


class Findings:
    """Findings by name, and how many cases tell their outcome; counts hold until the library changes."""

    def __init__(self, declared: Declared, library: Library) -> None:
        self._declared, self._library = declared, library
        self._state = ("", 0)
        self._counts: dict[Filter, int] = {}  # by what is counted: a finding may be declared anew
        self._kept: dict[tuple[str, Filter, FittedLibrary], Values] = {}
        self._telling: dict[Filter, Filter] = {}  # of numbers, by evidence_of: what of it is a number
        self._labels: tuple[str, ...] | None = None

    async def all(self) -> Declared:
        """Returns every finding, in the order of their names."""
        labels = await self._label_names()
        told = {finding.label for finding, _ in self._declared.values()}
        others = {name: (undeclared(name), None) for name in labels if name not in told | set(self._declared)}
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
            state = self._state
            count = await self._library.count(where)
            if state != self._state:
                return count
            self._counts[where] = count
        return self._counts[where]

    async def evidence(self, finding: Finding) -> Filter:
        """Returns which cases may be evidence, so that a search for K of them finds K that tell the outcome."""
        if not finding.is_number:
            return evidence_of(finding)
        await self._renew()
        where = evidence_of(finding)
        if where not in self._telling:
            state = self._state
            telling = numbers_of(finding, await self._library.values(finding.label, where))
            if state != self._state:
                return telling
            self._telling[where] = telling
        return self._telling[where]

    async def kept(self, finding: Finding, fitted: Fitted | None) -> Values | None:
        """Returns how many labelled cases in scope are as they were at the fit, by value; None without a fit."""
        if fitted is None:
            return None
        await self._renew()
        key = finding.label, evidence_of(finding), fitted.library
        if key not in self._kept:
            state = self._state
            kept = await self._counted(finding, fitted.library)
            if state != self._state:
                return kept
            self._kept[key] = kept
        return self._kept[key]

    async def _counted(self, finding: Finding, then: FittedLibrary) -> Values:
        """One count for each value of the fit, which an index remembers of its parts that nobody wrote to since."""
        same = And((evidence_of(finding), Not(Range(CHANGED, above=then.changed_at_s))))
        wheres = {value: And((Equals("labels", f"{finding.label}={value}"), same)) for value, _ in then.values}
        kept = {value: await self._library.count(where) for value, where in wheres.items()}
        others = await self._library.count(same) - sum(kept.values())
        return (*kept.items(), *([(OTHER, others)] if others else []))

    async def _renew(self) -> None:
        state = await self._library.state()
        if state != self._state:
            self._state, self._counts, self._kept, self._telling, self._labels = state, {}, {}, {}, None

    async def _label_names(self) -> tuple[str, ...]:
        await self._renew()
        if self._labels is None:
            state, labels = self._state, tuple(await self._library.labels())
            if state != self._state:
                return labels
            self._labels = labels
        return self._labels


def evidence_of(finding: Finding) -> Filter:
    """Returns which cases may be evidence: without a flag, in scope, with one of the label's values that count."""
    scope = parse(finding.scope.text) if finding.scope.text else None
    values = (*finding.positive_values, *finding.negative_values)
    told = In("labels", tuple(f"{finding.label}={value}" for value in values)) if finding.negative_values else None
    return all_of(scope, told or has_label(finding.label), UNFLAGGED) or UNFLAGGED


def numbers_of(finding: Finding, values: Iterable[str]) -> Filter:
    """Returns which cases may be evidence of a number: those of evidence_of, but not with a value that is none.

    Args:
        finding: Whose answer is a number.
        values: Of its label, all that the cases of evidence_of have: "not assessed" may be one.
    """
    others = tuple(f"{finding.label}={value}" for value in sorted(values) if not finding.counts(value))
    return And((evidence_of(finding), Not(In("labels", others)))) if others else evidence_of(finding)
