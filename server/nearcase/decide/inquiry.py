"""How a decision was asked for: all that it takes to ask again, but whom or what it was about.

What names a person is not kept, only that it was there: the ids of a stored case, the facts that came with a file, and
a filter that could name a patient (by an id, a date or free text). Whoever replays the decision gives them again.
"""

from __future__ import annotations

from dataclasses import dataclass

from nearcase.decide.operating import Choice
from nearcase.errors import InvalidInput

FILE, FILES, CASE, SERIES, STUDY = "file", "files", "case", "series", "study"
SOURCES = (FILE, FILES, CASE, SERIES, STUDY)

MOST_FRAMES = 64
"""Files of one decision, see the API."""


@dataclass(frozen=True, slots=True)
class Inquiry:
    """The form of the question; the finding and the prevalence are in the basis."""

    source: str = FILE  # one of SOURCES
    frames: tuple[int, ...] = ()  # of each file, from 1; 0 where the middle one was taken
    choice: Choice | None = None  # None took the finding's default point
    k: int = 0  # 0 took the finding's own
    is_one_of_many: bool = False  # all findings in scope were asked at once
    where: str = ""  # the caller's filter of the evidence, where it names nobody
    is_where_kept: bool = True  # False: there was one that could name a patient, a study or a case
    near_duplicate_similarity: float | None = None  # images as like the query as that were left out
    facts: tuple[str, ...] = ()  # names of the facts that the request gave of the files
    has_patient: bool = False  # whose images they were was known, so that the patient's own cases were left out

    def __post_init__(self) -> None:
        if self.source not in SOURCES:
            raise InvalidInput(f"expected a source of {', '.join(SOURCES)}, got another", field="source")
        if len(self.frames) > MOST_FRAMES or any(not 0 <= frame < 2**31 for frame in self.frames):
            raise InvalidInput(f"expected at most {MOST_FRAMES} frames that count from 1", field="frames")
        if not 0 <= self.k <= 1000:
            raise InvalidInput("expected k from 0 to 1000, got another", field="k")


PLAIN = Inquiry()
"""About a file, at the finding's own point."""
