"""What the audit record of a request is to say beside its outcome: noted by the services while they know it.

It is noted as the library has it, before a case mask leaves out what was not asked for. The request's tasks share it.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from nearcase.retrieve.cases import patient_key

if TYPE_CHECKING:
    from nearcase.types import Case, Decision, Hit

Named = tuple[str, str]
"""A kind of name (case, patient, study ...) and its value in clear."""


@dataclass(slots=True)
class Notes:
    """Of one request; in clear, and never written so."""

    about: dict[Named, None] = field(default_factory=dict)
    cases: dict[str, None] = field(default_factory=dict)
    patients: dict[str, None] = field(default_factory=dict)
    decisions: list[Decision] = field(default_factory=list)
    count: int = 0
    library: str = ""
    target: str = ""
    detail: str = ""

    def asked(self, kind: str, value: str) -> None:
        """Notes what the request is about."""
        if value:
            self.about[kind, value] = None

    def asked_about(self, cases: Iterable[Case]) -> None:
        """Notes which images were asked with, as the library would know them."""
        for case in cases:
            self.asked("image", case.content_sha256)
            self.asked("patient", patient_key(case.facts.patient_id, case.facts.patient_id_issuer))
            self.asked("study", case.facts.study_uid)

    def shown(self, cases: Iterable[Case]) -> None:
        """Notes cases of the library that the caller gets to see, or changes."""
        for case in cases:
            self.cases[case.case_id] = None
            self.patients[patient_key(case.facts.patient_id, case.facts.patient_id_issuer)] = None

    def searched(self, hits: Iterable[Hit], library: str) -> None:
        """Notes what a search found, in which state of the library."""
        self.shown(hit.case for hit in hits)
        self.library = library

    def drain(self) -> Notes:
        """Returns what was noted so far, and forgets the cases: of a stream each part tells its own."""
        taken = replace(self)
        self.cases, self.patients, self.decisions, self.count = {}, {}, [], 0
        return taken


_current: ContextVar[Notes | None] = ContextVar("notes", default=None)


def begin_notes() -> Notes:
    """Returns the notes of the request that begins in this task; the tasks that it makes write to them too."""
    notes = Notes()
    _current.set(notes)
    return notes


def notes() -> Notes:
    """Returns the notes of this request; outside of one, notes that nobody reads."""
    return _current.get() or Notes()
