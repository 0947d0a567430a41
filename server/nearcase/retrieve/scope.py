"""What a search is about: its examples, which cases may be found, and what counts as one hit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from nearcase.index.filters import Equals, Filter, In, Not
from nearcase.retrieve.cases import FLAGS, other_origin
from nearcase.retrieve.library import all_of
from nearcase.types import Case

if TYPE_CHECKING:
    from nearcase.types import Embedding

UNFLAGGED = Not(In("flags", FLAGS))
"""A case with a flag is kept, and never found or used as evidence."""


class SelfExclusion(Enum):
    """Which of the query's own images may be among the hits."""

    PATIENT = "patient"  # nothing of the patient, study or series, and no copy of the file
    STUDY = "study"  # nothing of the study or series, and no copy of the file
    NONE = "none"


class Grouping(Enum):
    """What counts as one hit; the value is the field that tells groups apart."""

    INSTANCE = "case_id"
    SERIES = "series_uid"
    STUDY = "study_uid"
    PATIENT = "patient_key"


class SeriesMethod(Enum):
    """How the images of one series are searched with together (3D-MIR, arXiv 2311.13752)."""

    FREQUENCY = "frequency"  # each image's nearest neighbours vote for their groups
    MAX = "max"  # as above, ordered by the best similarity
    SUM = "sum"  # as above, ordered by the sum of similarities
    POOLED = "pooled"  # one embedding for the query, and one for each group


class Pooling(Enum):
    """How several embeddings become one."""

    MEAN = "mean"
    MEDIAN = "median"
    MAX = "max"


@dataclass(frozen=True, slots=True)
class Query:
    """One image of the query: its embedding, what is known of it, and how much it counts; negative is "unlike this"."""

    case: Case
    vector: Embedding
    weight: float = 1.0
    patients: tuple[str, ...] = ()  # keys that its patient has besides, by what the caller gave or the library knows

    @property
    def has_patient(self) -> bool:
        """Whether it is known whose image this is, so that the patient's own cases can be left out."""
        return bool(self.case.facts.patient_id or self.patients)


@dataclass(frozen=True, slots=True)
class Scope:
    """Which cases may be found, how many, and in which order."""

    k: int = 10
    where: Filter | None = None
    min_similarity: float | None = None
    self_exclusion: SelfExclusion = SelfExclusion.PATIENT
    with_thumbnails: bool = False
    grouping: Grouping = Grouping.INSTANCE
    method: SeriesMethod | None = None  # None joins the examples by weight: they are not images of one series
    pooling: Pooling = Pooling.MEAN
    diversity: float = 0.0  # 0 is plain order; below 1
    near_duplicate_similarity: float | None = None  # images at or above it, to any example, are left out


def has_label(name: str) -> Filter:
    """Returns a filter for the cases that tell the outcome of a finding."""
    return Equals("label_names", name)


def in_scope(queries: Sequence[Query], scope: Scope) -> Filter:
    """Returns which cases may be found, near duplicates aside: every search and every decision asks this."""
    return all_of(scope.where, _others(queries, scope.self_exclusion), UNFLAGGED) or UNFLAGGED


def _others(queries: Sequence[Query], exclusion: SelfExclusion) -> Filter | None:
    if exclusion is SelfExclusion.NONE:
        return None
    patients = [key for query in queries for key in query.patients]
    with_patient = exclusion is SelfExclusion.PATIENT
    return other_origin([query.case for query in queries], with_patient=with_patient, patients=patients)
